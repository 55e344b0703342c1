"""Print the events of a run as a person reads them, and say whether all stories came true."""

import time
from collections.abc import Iterable

from lab.boot import Event


def render(event: Event) -> list[str]:
    """The lines that tell one event."""
    t = f"{event['t']:9.3f}"
    match event["event"]:
        case "say":
            return [f"{t}  {event['text']}"]
        case "check":
            return [f"{t}  {'ok  ' if event['ok'] else 'FAIL'}  {event['text']}"]
        case "record":
            params = ", ".join(f"{k}={v}" for k, v in event["params"].items())
            value = f"{event['value']:.6g}" if isinstance(event["value"], float) else event["value"]
            return [
                f"{t}  {event['name']} = {value} {event['unit']}" + (f"  ({params})" * bool(params))
            ]
        case "story_begin":
            return ["", f"== {event['story']}"]
        case "log":
            body = [f"    {line}" for line in event["text"].splitlines()]
            return [f"-- log of {event['name']}", *body]
        case "story_end":
            verdict = "came true" if event["ok"] else "DID NOT COME TRUE"
            error = [f"    {line}" for line in (event["error"] or "").splitlines()]
            return [*error, f"== {event['story']} {verdict} ({event['virtual_s']} virtual s)"]
        case "guest_failed":
            return [f"!! {line}" for line in event["text"].splitlines()]
        case _:
            return []


def show(events: Iterable[Event], stories: int) -> bool:
    """Print events as they come. True when every one of that many stories came true."""
    start = time.monotonic()
    came_true = failed = 0
    for event in events:
        for line in render(event):
            print(line, flush=True)
        if event["event"] == "story_end":
            came_true += event["ok"]
        failed += event["event"] == "guest_failed"
    seconds = time.monotonic() - start
    print(f"\nlab: {came_true} of {stories} stories came true ({seconds:.0f} s of wall time)")
    return came_true == stories and not failed
