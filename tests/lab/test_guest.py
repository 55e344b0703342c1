"""What goes wrong in a guest is told, and what goes right repeats. Boots guests of its own."""

from pathlib import Path

import pytest

from lab.boot import Event, GuestOptions, pack, run_packed, run_stories
from lab.image import ensure_image
from lab.scenario import find_stories

FAULTS = '''"""Every way to fail."""
import pathlib


def story_untrue(lab):
    lab.machine("m").background(["sh", "-c", "echo a word of the daemon"], name="talker")
    lab.wait_until(lambda: "daemon" in lab.logs().get("m-talker", ""), 5, "the daemon talks")
    lab.check(False, "this is not so")
    lab.check(True, "this is, and the story went on")


def story_never(lab):
    lab.wait_until(lambda: False, 3600, "what never comes")


def story_raises(lab):
    lab.machine("m").run(["ip", "link", "show", "nothing"])


def story_fine(lab):
    print("a printed line")
    assert not list(pathlib.Path("/run/netns").glob("m"))
    lab.record("answer", 42, "", why="asked")


def story_panics(lab):
    pathlib.Path("/proc/sys/kernel/sysrq").write_text("1")
    pathlib.Path("/proc/sysrq-trigger").write_text("c")


def story_after(lab):
    pass
'''

RANDOM = '''"""Anything random."""
import os
import random

from lab.topology import Lab, Line


def story(lab: Lab) -> None:
    site = lab.site("a")
    uplink = site.uplink("lte", down=Line(delay_ms=20, jitter_ms=5, loss=0.05))
    site.configure_plainly()
    server = lab.internet_host("server")
    result = lab.ping(site, server, count=50, interval_s=0.02)
    lab.say(f"{result} {os.urandom(8).hex()} {random.random()} {hash('word')}")
    lab.say(site.run(["wg", "genkey"]))
'''


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Event]]:
    """The events of each story of FAULTS; those of no story under ""."""
    path = tmp_path_factory.mktemp("faults") / "faults.py"
    path.write_text(FAULTS)
    events: dict[str, list[Event]] = {}
    story = ""
    for event in run_stories(find_stories(path)):
        story = event.get("story", story)
        events.setdefault(story, []).append(event)
    return {name.removeprefix("faults.py::story_"): told for name, told in events.items()}


def test_a_false_sentence_fails_its_story_and_shows_the_logs(
    faults: dict[str, list[Event]],
) -> None:
    events = faults["untrue"]
    checks = [event["ok"] for event in events if event["event"] == "check"]
    assert checks == [False, True]
    logs = {event["name"]: event["text"] for event in events if event["event"] == "log"}
    assert logs == {"m-talker": "a word of the daemon\n"}
    assert not events[-1]["ok"]


def test_waiting_in_vain_ends_in_virtual_time(faults: dict[str, list[Event]]) -> None:
    end = faults["never"][-1]
    assert not end["ok"]
    assert end["error"] == "not within 3600 s: what never comes"
    assert end["virtual_s"] > 3600


def test_a_failed_command_is_told_with_what_it_printed(faults: dict[str, list[Event]]) -> None:
    end = faults["raises"][-1]
    assert not end["ok"]
    assert 'Device "nothing" does not exist' in end["error"]


def test_the_next_story_finds_an_empty_world(faults: dict[str, list[Event]]) -> None:
    events = faults["fine"]
    assert events[-1]["ok"]
    assert [event["text"] for event in events if event["event"] == "say"] == ["a printed line"]
    (record,) = (event for event in events if event["event"] == "record")
    assert (record["name"], record["value"], record["params"]) == ("answer", 42, {"why": "asked"})


def test_a_kernel_panic_is_the_last_word(faults: dict[str, list[Event]]) -> None:
    last = faults["panics"][-1]
    assert last["event"] == "guest_failed"
    assert "Kernel panic" in last["text"]
    assert "sysrq_handle_crash" in last["text"]
    assert "after" not in faults


def test_two_boots_repeat_to_the_last_octet(tmp_path: Path) -> None:
    path = tmp_path / "random.py"
    path.write_text(RANDOM)
    image = ensure_image()
    runs = []
    for seed, initrd in ((1, tmp_path / "one"), (1, tmp_path / "one"), (2, tmp_path / "two")):
        options = GuestOptions(seed=seed)
        if not initrd.exists():
            pack(initrd, image, find_stories(path), options)
        runs.append(list(run_packed(initrd, image, options)))
    first, second, other = runs
    assert first[-1]["event"] == "end"
    assert first == second
    assert first != other


def test_a_guest_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "busy.py"
    path.write_text('"""Busy for ever."""\n\n\ndef story(lab):\n    while True:\n        pass\n')
    *_, last = run_stories(find_stories(path), GuestOptions(timeout_s=25))
    assert last["event"] == "guest_failed"
    assert "not done after 25 s" in last["text"]
