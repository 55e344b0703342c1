"""`make demo`: play the story of `lab/stories/demo.py` and show it live.

On a terminal the tables are redrawn in place; elsewhere they are printed at the end of each
chapter. The exit status is 0 only when the story came true.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from lab.boot import Event, GuestOptions, run_stories
from lab.console import render
from lab.image import ImageError
from lab.mirror import MirrorError
from lab.scenario import docstring, find_stories

STORY = Path(__file__).parent / "stories" / "demo.py"
STATE_STYLES = {"up": "green", "suspect": "yellow", "rising": "yellow", "down": "red"}


def main() -> int:
    console = Console(highlight=False)
    console.print(docstring(STORY), markup=False)
    console.print("\nBooting a virtual machine that keeps its own time ...", style="dim")
    start = time.monotonic()
    try:
        ok = play(console, run_stories(find_stories(STORY), GuestOptions(timeout_s=900)))
    except (ImageError, MirrorError) as error:
        console.print(f"demo: {error}", style="red")
        return 2
    verdict = "The story came true" if ok else "The story DID NOT come true"
    console.print(f"\n{verdict} ({time.monotonic() - start:.0f} s of your time).")
    return 0 if ok else 1


def play(console: Console, events: Iterator[Event]) -> bool:
    """Show the events; True when the story came true."""
    came_true = False
    board: Group | None = None
    with Live(console=console, auto_refresh=False, transient=True) as live:
        for event in events:
            match event["event"]:
                case "board":
                    board = tables(event["site"], event["status"])
                    if console.is_terminal:
                        live.update(board, refresh=True)
                case "board_rest" if board is not None:
                    console.print(board)
                case "record":
                    pass
                case "story_end":
                    came_true = bool(event["ok"])
                    for line in (event["error"] or "").splitlines():
                        console.print(line, markup=False, soft_wrap=True)
                case "story_begin":
                    pass
                case _:
                    for line in render(event):
                        console.print(line, markup=False, soft_wrap=True)
    return came_true


def tables(site: str, status: dict[str, Any]) -> Group:
    """The paths of a box and who carries its classes, as the box tells them."""
    paths = Table(
        "to", "uplinks", "state", "delay", "jitter", "loss", "MOS", title=f"{site}: paths"
    )
    for row in status["paths"]:
        if row["state"] == "down":  # what it was like is of no use to anybody
            row |= dict.fromkeys(("delay_us", "jitter_us", "loss_ratio", "mos"))
        paths.add_row(
            row["site"],
            row["uplinks"],
            f"[{STATE_STYLES.get(row['state'], 'dim')}]{row['state']}",
            number(row["delay_us"], 1000, "ms"),
            number(row["jitter_us"], 1000, "ms"),
            number(row["loss_ratio"], 0.01, "%"),
            number(row["mos"], 1, ""),
        )
    classes = Table("class", "to", "carried by", "meets its SLA", title=f"{site}: classes")
    for row in status["classes"]:
        carriers = ", ".join(c["uplinks"] for c in row["carriers"]) or "nothing: discarded"
        meets = {True: "[green]yes", False: "[red]no"}.get(row["meets_sla"], "not measured yet")
        classes.add_row(row["class_name"], row["site"], carriers, meets)
    return Group(paths, classes)


def number(value: float | None, unit: float, name: str) -> str:
    return "-" if value is None else f"{value / unit:.1f} {name}".strip()


if __name__ == "__main__":
    sys.exit(main())
