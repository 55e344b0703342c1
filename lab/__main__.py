"""`python -m lab run FILE...`, `python -m lab image`: see docs/LAB.md."""

import argparse
import sys
from pathlib import Path

from lab.boot import GuestOptions, run_stories
from lab.console import show
from lab.image import ImageError, ensure_image
from lab.mirror import MirrorError
from lab.scenario import ScenarioError, docstring, find_stories


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        if options.command == "image":
            image = ensure_image()
            print(f"lab: {image.kernel.parent}")
            return 0
        return _run(options)
    except (ImageError, MirrorError, ScenarioError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    stories = [story for path in options.files for story in find_stories(Path(path), options.story)]
    guest = GuestOptions(
        memory_mib=options.memory,
        timeout_s=options.timeout,
        seed=options.seed,
        extra=tuple(Path(path).resolve() for path in options.extra),
    )
    for path in options.files:
        print(docstring(Path(path)), flush=True)
    print("lab: booting the guest", flush=True)
    return 0 if show(run_stories(stories, guest), len(stories)) else 1


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lab", description="the virtual-time lab")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("image", help="build the guest now, if it is not there")
    run = commands.add_parser("run", help="run scenario files in one guest")
    run.add_argument("files", nargs="+", metavar="FILE")
    run.add_argument("--story", help="only this function of the file")
    run.add_argument("--seed", type=int, default=1, help="of all random impairments (1)")
    run.add_argument("--memory", type=int, default=2048, metavar="MIB", help="of the guest (2048)")
    run.add_argument(
        "--timeout", type=float, default=1200, metavar="S", help="wall time of a story (1200)"
    )
    run.add_argument(
        "--extra", action="append", default=[], metavar="PATH", help="put beside the scenario"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
