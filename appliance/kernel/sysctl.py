"""Kernel settings under /proc/sys, by their names with slashes."""

from pathlib import Path

_ROOT = Path("/proc/sys")


def read_sysctl(name: str) -> str | None:
    """The value without white space around it, or None where there is no such setting."""
    try:
        return (_ROOT / name).read_text().strip()
    except OSError:
        return None


def write_sysctl(name: str, value: str) -> None:
    """Set it. Raises OSError: ENOENT also when the device that it belongs to is gone."""
    # Not Path.write_text: opening for writing must not create or truncate here.
    with (_ROOT / name).open("r+") as file:
        file.write(value)
