"""Numbers, times and states as people read them. Pure: `now` is a parameter."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

NOTHING = "-"  # not measured, not known

CAUSES: Mapping[str, str] = {
    "initial": "first choice",
    "path-down": "path down",
    "uplink-down": "uplink down",
    "sla-violated": "SLA violated",
    "recovered": "recovered",
    "better-path": "better path",
    "no-path": "no path left",
    "configured": "configured",
    "mtu-changed": "path MTU changed",
    "reordering": "delays too far apart",
    "second-path": "second path changed",
}
VERDICTS: Mapping[str, str] = {
    "meets": "meets the SLA",
    "violates": "violates the SLA",
    "unmeasured": "not measured yet",
    "unusable": "not usable",
    "not-permitted": "not permitted",
}
DISCARDED = "discarded"  # what becomes of a class that nothing may carry


def milliseconds(microseconds: int | None) -> str:
    return NOTHING if microseconds is None else f"{microseconds / 1000:.1f} ms"


def percent(ratio: float | None) -> str:
    """Three digits where they matter: 0.3 %, 12 %."""
    if ratio is None:
        return NOTHING
    return f"{100 * ratio:.1f} %" if ratio < 0.1 else f"{100 * ratio:.0f} %"


def mos(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def rate(bps: int | None) -> str:
    """Two digits or three: 950 bit/s, 4.2 Mbit/s, 18 Mbit/s."""
    if bps is None:
        return NOTHING
    for size, unit in ((10**9, "Gbit/s"), (10**6, "Mbit/s"), (10**3, "kbit/s")):
        if bps >= size:
            return f"{bps / size:.0f} {unit}" if bps >= 10 * size else f"{bps / size:.1f} {unit}"
    return f"{bps} bit/s"


def between(least_bps: int, most_bps: int) -> str:
    """The bounds of a rate that is learned."""
    return NOTHING if least_bps == most_bps else f"{rate(least_bps)} and {rate(most_bps)}"


def measured(value: str, age_s: float | None) -> str:
    """A value with its age: 18 Mbit/s, 12 s ago."""
    return value if age_s is None else f"{value}, {duration(age_s)} ago"


def yes_or_no(value: bool | None) -> str:
    return NOTHING if value is None else "yes" if value else "no"


def duration(seconds: float) -> str:
    """The two largest units: 0.4 s, 12 s, 3 min 20 s, 5 h 12 min, 4 d 3 h."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = int(seconds)
    for size, unit, below, small in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit} {rest} {small}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def ago(seconds: float | None) -> str:
    return NOTHING if seconds is None else f"{duration(seconds)} ago"


def moment(at: float, now: float) -> str:
    """Local time of day, with the date when that is another day than now's."""
    then, today = (datetime.fromtimestamp(t).astimezone() for t in (at, now))
    return then.strftime("%H:%M:%S" if then.date() == today.date() else "%Y-%m-%d %H:%M:%S")


def since(at: float | None, now: float) -> str:
    """A moment and how long ago it was: 12:03:04 (5 min ago)."""
    return NOTHING if at is None else f"{moment(at, now)} ({ago(now - at)})"


def count(number: int, thing: str, things: str = "") -> str:
    return f"{number} {thing if number == 1 else things or thing + 's'}"


def carriers(rows: Sequence[Mapping[str, Any]]) -> str:
    """Who carries a class: labels and plane, with shares when there are several."""
    if not rows:
        return DISCARDED
    total = sum(row["weight"] for row in rows)
    names = [f"{row['uplinks']} ({plane(row['path'])})" for row in rows]
    if len(rows) == 1:
        return names[0]
    return " + ".join(
        f"{name} {100 * row['weight'] / total:.0f} %" for name, row in zip(names, rows, strict=True)
    )


def carried(row: Mapping[str, Any]) -> str:
    """The same of a whole row, with where copies go."""
    second = row["second"]
    more = "" if second is None else f", copies over {carriers([second])}"
    return f"{carriers(row['carriers'])}{more}"


def plane(path: str) -> str:
    """The plane of a path: "1-2" of "hq/1-2"."""
    return path.rsplit("/", 1)[-1]
