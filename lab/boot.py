"""Boot the guest under virtual time, hand it stories, and bring out what they report.

`-icount shift=0` makes one instruction one virtual nanosecond: the guest is an exact 1-GIPS
machine whatever the host is, and idle time is skipped. Everything the guest could take from
outside (clock, random numbers, disks, network) is fixed or absent, so a story repeats.
"""

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.archive import CpioWriter
from lab.image import CACHE, REPOSITORY, Image, ensure_image
from lab.slots import slot

KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet panic=-1 oops=panic mitigations=off nokaslr tsc=reliable "
    # what a boot would spend half its instructions on: self-tests and services nobody uses here
    "cryptomgr.notests initcall_blacklist=jent_mod_init apparmor=0 audit=0 "
    "random.trust_cpu=on net.ifnames=0"
)
# Without cmpxchg16b: QEMU 7.2 loses the flags when a timer interrupts right after it, and the
# guest's memory allocator, which uses it all the time, dies of a double fault once in many boots.
CPU = "max,-cx16"
_OOPS = ("Kernel panic", "Oops:", "BUG: ", "general protection fault", "WARNING: ")
_KEPT_RUNS, _YOUNG_S = 20, 7200.0
_POLL_S = 0.05

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Story:
    """One function of a scenario file."""

    file: Path
    function: str

    @property
    def id(self) -> str:
        return f"{self.file.name}::{self.function}"


@dataclass(frozen=True, slots=True)
class GuestOptions:
    memory_mib: int = 2048
    timeout_s: float = 1200  # of wall time, for each story; the first one's with the boot
    seed: int = 1
    is_warm: bool = True  # the product is loaded once (lab/warm.py)
    extra: tuple[Path, ...] = ()  # files and folders put beside the scenario files


def run_stories(stories: Sequence[Story], options: GuestOptions | None = None) -> Iterator[Event]:
    """Boot one guest, run the stories in it, and yield their events as they happen.

    The events are those of lab/report.py. When the guest dies or a story's time runs out, one event
    `guest_failed` with the reason and the console's end comes last in place of `end`.
    """
    options = options or GuestOptions()
    image = ensure_image()
    with tempfile.TemporaryDirectory(prefix="initrd-", dir=CACHE) as scratch:
        initrd = Path(scratch) / "initrd.cpio"
        pack(initrd, image, stories, options)
        yield from run_packed(initrd, image, options)


def run_packed(initrd: Path, image: Image, options: GuestOptions) -> Iterator[Event]:
    """Boot what `pack` wrote; the same file gives the same events, again and again."""
    with slot():
        yield from _run(_new_run_directory(), image, initrd, options)


def qemu_command(
    image: Image, initrd: Path, console: Path, results: Path, options: GuestOptions
) -> list[str]:
    """The guest's command line. No network, no disk, no display: two serial ports to files.

    A guest whose owner is killed dies with it: nobody would read what it reports.
    """
    return [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "qemu-system-x86_64",
        "-accel",
        "tcg",
        "-icount",
        "shift=0,sleep=off",
        "-cpu",
        CPU,
        "-m",
        str(options.memory_mib),
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-rtc",
        "base=2026-01-01T00:00:00,clock=vm",
        "-seed",
        str(options.seed),
        "-serial",
        f"file:{console}",
        "-serial",
        f"file:{results}",
        "-kernel",
        str(image.kernel),
        "-initrd",
        str(initrd),
        "-append",
        KERNEL_ARGUMENTS,
    ]


def _run(directory: Path, image: Image, initrd: Path, options: GuestOptions) -> Iterator[Event]:
    console, results = directory / "console.log", directory / "results.jsonl"
    results.touch()
    command = qemu_command(image, initrd, console, results, options)
    deadline = time.monotonic() + options.timeout_s
    ended = False
    with (
        (directory / "qemu.log").open("wb") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        ) as process,
        results.open(encoding="utf-8") as stream,
    ):
        try:
            reader = _Lines()
            while True:
                exited = process.poll() is not None
                for line in reader.feed(stream.read()):
                    event: Event = json.loads(line)
                    ended = ended or event["event"] == "end"
                    if event["event"] == "story_end":
                        deadline = time.monotonic() + options.timeout_s
                    yield event
                if exited:
                    break
                if time.monotonic() > deadline:
                    reason = f"not done after {options.timeout_s:g} s of wall time"
                    yield _failure(reason, directory)
                    return
                time.sleep(_POLL_S)
        finally:
            process.kill()
    if not ended:
        yield _failure("the guest ended early", directory)
    elif find_oops(console.read_text(errors="replace")):
        yield _failure("the guest's kernel is in trouble", directory)


def find_oops(console: str) -> str:
    """The part of the console from the first kernel oops on; empty when there is none."""
    starts = [console.find(mark) for mark in _OOPS if mark in console]
    return console[min(starts) :] if starts else ""


def _failure(reason: str, directory: Path) -> Event:
    console = (directory / "console.log").read_text(errors="replace")
    shown = find_oops(console) or console[-6000:]
    qemu = (directory / "qemu.log").read_text(errors="replace")
    text = f"{reason}\n{qemu}{shown}\n(all of it: {directory})"
    return {"event": "guest_failed", "t": 0.0, "text": text}


class _Lines:
    """Whole lines out of a growing file."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, text: str) -> list[str]:
        *lines, self._rest = (self._rest + text).split("\n")
        return [line for line in lines if line.strip()]


def _new_run_directory() -> Path:
    runs = CACHE / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S-")
    directory = Path(tempfile.mkdtemp(prefix=stamp, dir=runs))
    for old in sorted(runs.iterdir())[:-_KEPT_RUNS]:
        with contextlib.suppress(FileNotFoundError):  # another guest may be tidying up too
            if old.stat().st_mtime < time.time() - _YOUNG_S:  # a younger one may be running
                shutil.rmtree(old, ignore_errors=True)
    return directory


def pack(path: Path, image: Image, stories: Sequence[Story], options: GuestOptions) -> None:
    """The image, followed by a small archive with the project, the scenarios and the plan."""
    with path.open("wb") as stream:
        with image.root.open("rb") as root:
            shutil.copyfileobj(root, stream, 1 << 20)
        cpio = CpioWriter(stream)
        for package in ("appliance", "lab", "tests"):
            cpio.add_tree(REPOSITORY / package, f"opt/branchline/{package}", keep=_is_source)
        _add_commands(cpio)
        folders: dict[Path, str] = {}
        for story in stories:
            place = folders.setdefault(story.file, f"opt/scenarios/{len(folders)}")
            target = f"{place}/{story.file.name}"
            cpio.add_file(target, story.file.read_bytes())
            for extra in options.extra:
                if extra.is_dir():
                    cpio.add_tree(extra, f"{place}/{extra.name}", keep=_is_source)
                else:
                    cpio.add_file(f"{place}/{extra.name}", extra.read_bytes())
        plan = {
            "seed": options.seed,
            "is_warm": options.is_warm,
            "stories": [
                {
                    "id": story.id,
                    "file": f"/{folders[story.file]}/{story.file.name}",
                    "function": story.function,
                }
                for story in stories
            ],
        }
        cpio.add_file("opt/branchline/plan.json", json.dumps(plan).encode())
        cpio.close()


def _is_source(path: Path) -> bool:
    return "__pycache__" not in path.parts and not path.name.startswith(".")


def _add_commands(cpio: CpioWriter) -> None:
    """The project's commands and its metadata, as an installation would make them."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for name, target in project["scripts"].items():
        module, _, function = target.partition(":")
        script = f"#!/usr/bin/python3\nfrom {module} import {function}\n{function}()\n"
        cpio.add_file(f"usr/local/bin/{name}", script.encode(), 0o755)
    metadata = f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n"
    info = f"opt/branchline/{project['name']}-{project['version']}.dist-info"
    cpio.add_file(f"{info}/METADATA", metadata.encode())
