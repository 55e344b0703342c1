from lab.boot import find_oops

QUIET = "lab: runner ended with 0\n[   4.2] reboot: Power down\n"


def test_an_oops_is_shown_from_its_first_line_on() -> None:
    console = "boot\nBUG: kernel NULL pointer dereference\nOops: 0002\nKernel panic - not syncing\n"
    assert find_oops(console) == console.removeprefix("boot\n")


def test_a_quiet_console_has_none() -> None:
    assert find_oops(QUIET) == ""
