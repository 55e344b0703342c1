"""`python -m tests.bench [NAME ...]`: run benchmarks in the lab and say which targets are met.

A NAME is a benchmark (`blackout`: the stories of tests/bench/lab_blackout.py) or one of its numbers
(`blackout_20ms_ratio`). Each benchmark has a guest of its own, at most two run side by side. The
exit status says whether everything could be measured; a missed target is printed as MISSED.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lab.boot import Event, GuestOptions, run_stories
from lab.console import render
from lab.image import ImageError, ensure_image
from lab.mirror import MirrorError
from lab.scenario import find_stories
from lab.slots import available_slots
from tests.bench.results import (
    DOCUMENTS,
    Entry,
    make_entry,
    markdown_table,
    rewrite,
    rows,
    store,
    text_table,
)
from tests.bench.targets import TARGETS

FOLDER = Path(__file__).parent
MOST_GUESTS = 2
SEED = 1
TIMEOUT_S = 7200  # wall time of one story
MEMORY_MIB = {"hub": 6144}  # 4,000 far ends
USUAL_MEMORY_MIB = 2048
# The longest first, so that the last guest does not run alone for long.
ORDER = (
    "hub",
    "brownout",
    "noisy",
    "blackout",
    "flapping",
    "sigkill",
    "footprint",
    "autorate",
    "catalogue",
    "offload",
    "shares",
    "shaping",
    "duplicate",
    "bond",
    "goodput",
    "sessions",
    "breakout",
    "carrier",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a benchmark brought out, and what kept it from the rest."""

    bench: str
    entries: tuple[Entry, ...]
    troubles: tuple[str, ...]


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    if options.list:
        for target in TARGETS:
            print(f"{target.bench:<10} {target.name:<29} {target.text}")
        return 0
    if options.docs:
        return write_documents()
    try:
        benches = chosen(options.names)
        ensure_image()  # once, not by two guests at the same time
    except (KeyError, ImageError, MirrorError) as error:
        print(f"bench: {error.args[0]}", file=sys.stderr)
        return 2
    guests = min(MOST_GUESTS, available_slots(), options.guests)
    start = time.monotonic()
    with ThreadPoolExecutor(guests) as pool:
        outcomes = list(pool.map(partial(run, seed=options.seed), *zip(*benches, strict=True)))
    ran = {bench for bench, _ in benches}
    print(f"\n{text_table(row for row in rows() if row.target.bench in ran)}\n")
    print(f"bench: results in build/bench ({time.monotonic() - start:.0f} s of wall time)")
    troubles = [f"{o.bench}: {trouble}" for o in outcomes for trouble in o.troubles]
    for trouble in troubles:
        print(f"bench: NOT MEASURED {trouble}", file=sys.stderr)
    return 1 if troubles else 0


def chosen(names: list[str]) -> list[tuple[str, frozenset[str]]]:
    """Benchmarks to run, each with the numbers that are wanted of it. Raises KeyError."""
    wanted: dict[str, set[str]] = {}
    for name in names or ORDER:
        found = [t for t in TARGETS if name in (t.name, t.bench)]
        if not found:
            known = ", ".join(ORDER)
            message = f"no benchmark and no number is called {name}; there are {known}"
            raise KeyError(message)
        for target in found:
            wanted.setdefault(target.bench, set()).add(target.name)
    return [(bench, frozenset(wanted[bench])) for bench in ORDER if bench in wanted]


def run(bench: str, wanted: frozenset[str], *, seed: int) -> Outcome:
    """Run the stories of a benchmark in one guest and store what they recorded."""
    file = FOLDER / f"lab_{bench}.py"
    stories = find_stories(file)
    if len(stories) > 1:
        functions = [s.function for s in stories]
        needed = {_story_of(name, bench, functions) for name in wanted}
        stories = [s for s in stories if s.function in needed]
    memory = MEMORY_MIB.get(bench, USUAL_MEMORY_MIB)
    options = GuestOptions(memory_mib=memory, timeout_s=TIMEOUT_S, seed=seed, is_warm=False)
    parameters = {"accelerator": "tcg", "icount_shift": 0, "memory_mib": memory, "seed": seed}
    entries: list[Entry] = []
    troubles: list[str] = []
    story = ""
    for event in _told(bench, run_stories(stories, options)):
        match event["event"]:
            case "story_begin":
                story = event["story"]
            case "record":
                entries.append(make_entry(event, story, parameters))
            case "story_end" if not event["ok"]:
                troubles.append(f"{story} did not come true")
            case "guest_failed":
                troubles.append(f"{story or 'the guest'}: {event['text'].splitlines()[0]}")
            case _:
                pass
    measured = {entry["name"] for entry in entries}
    troubles += [f"{name} was not recorded" for name in sorted(wanted - measured)]
    store(bench, entries)
    return Outcome(bench, tuple(entries), tuple(troubles))


def _story_of(name: str, bench: str, functions: list[str]) -> str:
    """The story that measures a number: `story_loss_traffic` that of `brownout_loss_traffic_p95_s`.

    A story's name is the beginning of the names of its numbers; of several the longest counts.
    What none is named after is measured by the one that is called `story`.
    """
    found = [f for f in functions if name.startswith(f"{bench}_{f.removeprefix('story_')}")]
    return max(found, key=len, default="story")


def _told(bench: str, events: Iterator[Event]) -> Iterator[Event]:
    for event in events:
        for line in render(event):
            print(f"{bench:>9} | {line}", flush=True)
        yield event


def write_documents() -> int:
    """Put the table of the newest results into the documents that show it."""
    table = markdown_table(rows())
    for path in DOCUMENTS:
        if path.exists():
            path.write_text(rewrite(path.read_text(), table))
            print(f"bench: wrote {path.name}")
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--list", action="store_true", help="list benchmarks and targets, and end")
    parser.add_argument(
        "--docs", action="store_true", help="write the table of the last results, and end"
    )
    parser.add_argument("--seed", type=int, default=SEED, help="of all random impairments (1)")
    parser.add_argument("--guests", type=int, default=MOST_GUESTS, help="side by side (2)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
