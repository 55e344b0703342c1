"""The results of the benchmarks: a JSON list per benchmark in build/bench/, and tables of them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.targets import TARGETS, Target

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "build" / "bench"
DOCUMENTS = (REPOSITORY / "docs" / "BENCHMARKS.md", REPOSITORY / "README.md")
BEGIN, END = "<!-- benchmarks -->", "<!-- end of benchmarks -->"

Entry = dict[str, Any]


def make_entry(event: Mapping[str, Any], story: str, lab: Mapping[str, object]) -> Entry:
    """A `record` event of a story as an entry of the results. `lab` has the guest's parameters."""
    parameters = dict(event["params"])
    return {
        "name": event["name"],
        "value": event["value"],
        "unit": event["unit"],
        "samples": parameters.pop("samples", [event["value"]]),
        "peer": parameters.pop("peer", None),
        "also": parameters.pop("also", []),
        "conditions": parameters.pop("conditions", {}),
        "lab": {**lab, **parameters.pop("guest", {})},
        "story": story,
        **parameters,
    }


def is_met(target: Target, entry: Mapping[str, Any]) -> bool:
    """Value within its limit, and so is everything `also` asked for by the same target."""
    return target.is_met(entry["value"]) and all(
        side["value"] <= side["limit"] for side in entry["also"]
    )


def store(bench: str, entries: Iterable[Entry], folder: Path = RESULTS) -> None:
    """Write the entries of a benchmark; earlier ones of the same name are replaced."""
    kept = {entry["name"]: entry for entry in load(bench, folder)}
    kept.update((entry["name"], entry) for entry in entries)
    order = {target.name: n for n, target in enumerate(TARGETS)}
    listed = sorted(kept.values(), key=lambda entry: order.get(entry["name"], len(order)))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{bench}.json").write_text(json.dumps(listed, indent=2) + "\n")


def load(bench: str, folder: Path = RESULTS) -> list[Entry]:
    """The entries of a benchmark that ran; empty when it never did."""
    path = folder / f"{bench}.json"
    return json.loads(path.read_text()) if path.exists() else []


@dataclass(frozen=True, slots=True)
class Row:
    """A target and what was measured of it."""

    target: Target
    entry: Entry | None

    @property
    def verdict(self) -> str:
        if self.entry is None:
            return "not measured"
        return "met" if is_met(self.target, self.entry) else "MISSED"

    @property
    def value(self) -> str:
        return "-" if self.entry is None else number(self.entry["value"])

    @property
    def peer(self) -> str:
        """What the peer reaches in the same run, where there is one."""
        peer = (self.entry or {}).get("peer")
        return f"{peer['name']}: {number(peer['value'])} {peer['unit']}" if peer else ""

    @property
    def remarks(self) -> str:
        """The side conditions, and the story's own remark."""
        if self.entry is None:
            return ""
        sides = [
            f"{side['what']}: {number(side['value'])} {side['unit']} (at most {side['limit']:g})"
            for side in self.entry["also"]
        ]
        remark = self.entry["conditions"].get("remark")
        return "; ".join([*sides, *([remark] if remark else [])])


def rows(folder: Path = RESULTS) -> list[Row]:
    """Every target in order, with its newest result."""
    found = {
        entry["name"]: entry
        for bench in dict.fromkeys(target.bench for target in TARGETS)
        for entry in load(bench, folder)
    }
    return [Row(target, found.get(target.name)) for target in TARGETS]


def number(value: float) -> str:
    """Three digits that count, without exponents for what a person reads."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def text_table(listed: Iterable[Row]) -> str:
    """For the terminal."""
    head = f"{'name':<29} {'target':>15} {'value':>9}  verdict"
    return "\n".join([head, *map(_text_row, listed)])


def _text_row(row: Row) -> str:
    remarks = f"  ({row.remarks})" if row.remarks else ""
    return f"{row.target.name:<29} {row.target.text:>15} {row.value:>9}  {row.verdict}{remarks}"


def markdown_table(listed: Iterable[Row]) -> str:
    """For the documents."""
    lines = [
        "| name | what | target | measured | | beside it |",
        "|---|---|---|---|---|---|",
    ]
    for row in listed:
        beside = "; ".join(filter(None, (row.peer, row.remarks)))
        lines.append(
            f"| `{row.target.name}` | {row.target.what} | {row.target.text} | {row.value} "
            f"| {row.verdict} | {beside} |"
        )
    return "\n".join(lines)


def rewrite(document: str, table: str) -> str:
    """The document with the table between its markers. Raises ValueError without them."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        message = f"no {BEGIN} ... {END} in the document"
        raise ValueError(message)
    return f"{head}{BEGIN}\n{table}\n{END}{tail}"
