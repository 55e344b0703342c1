"""What the commands print for people. Rich is loaded here and nowhere else.

Each function takes the JSON that the API answers with. Colour only says again what a word says.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from appliance.cli import words

Row = Mapping[str, Any]

_WIDTH_OF_A_FILE = 200  # columns when the output is not a terminal: nothing is cut off
_STYLES = {
    "up": "green",
    "meets the SLA": "green",
    "suspect": "yellow",
    "rising": "yellow",
    "unhealthy": "yellow",
    "violates the SLA": "yellow",
    "warning": "yellow",
    "down": "red",
    "critical": "red",
    words.DISCARDED: "red",
}


def console(file: TextIO | None = None) -> Console:
    """Where to print: coloured on a terminal (and not with NO_COLOR), plain text elsewhere."""
    target = file or sys.stdout
    width = None if target.isatty() else _WIDTH_OF_A_FILE
    return Console(file=target, width=width, highlight=False, soft_wrap=False, emoji=False)


def show_status(out: Console, status: Row, now: float) -> None:
    paths, classes = status["paths"], status["classes"]
    up = sum(path["state"] == "up" for path in paths)
    met = sum(bool(row["carriers"]) and row["meets_sla"] is not False for row in classes)
    out.print(
        f"{status['site']} (site {status['site_id']}): {status['stage']} for"
        f" {words.duration(status['uptime_s'])}, as of {words.since(status['at'], now)}",
        markup=False,
    )
    ages = [path["age_s"] for path in paths if path["age_s"] is not None]
    measured = f", all measured within the last {words.duration(max(ages))}" if ages else ""
    out.print(f"{up} of {words.count(len(paths), 'path')} up{measured}")
    out.print(f"{met} of {words.count(len(classes), 'class', 'classes')} carried as they should be")
    config = status["config"]
    out.print(
        f"configuration {config['file']} ({config['digest']}), in force since"
        f" {words.since(config['since'], now)}",
        markup=False,
    )
    if config["refused"]:
        refused = words.count(len(config["refused"]), "error")
        out.print(f"a newer one was refused with {refused}: see `branchline validate`", style="red")
    out.print()
    _print_table(
        out,
        ("uplink", "state", "since", "device", "addresses", "detail"),
        (
            (
                _labelled(uplink),
                uplink["state"],
                words.since(uplink["since"], now),
                uplink["device"],
                ", ".join(uplink["addresses"]) or words.NOTHING,
                uplink["detail"],
            )
            for uplink in status["uplinks"]
        ),
    )
    out.print()
    _show_shapers(out, status["uplinks"])
    show_warnings(out, status["warnings"], now)


def _show_shapers(out: Console, uplinks: Sequence[Row]) -> None:
    """The rates of the lines that are shaped, if any is."""
    rows = [(uplink, shaper) for uplink in uplinks for shaper in uplink["shapers"]]
    if not rows:
        return
    _print_table(
        out,
        ("uplink", "", "rate", "learned between", "used", "carried when full", "queue in the line"),
        (
            (
                _labelled(uplink),
                shaper["direction"],
                words.rate(shaper["rate_bps"]),
                words.between(shaper["least_bps"], shaper["most_bps"]),
                words.rate(shaper["used_bps"]),
                words.measured(words.rate(shaper["carried_bps"]), shaper["carried_age_s"]),
                words.milliseconds(shaper["queue_us"]),
            )
            for uplink, shaper in rows
        ),
    )
    out.print()


def show_warnings(out: Console, warnings: Sequence[Row], now: float) -> None:
    if not warnings:
        out.print("no warnings")
        return
    _print_table(
        out,
        ("severity", "since", "warning"),
        ((w["severity"], words.since(w["since"], now), w["text"]) for w in warnings),
    )


def show_paths(out: Console, paths: Sequence[Row]) -> None:
    _print_table(
        out,
        ("site", "uplinks", "plane", "state", "delay", "jitter", "loss", "MOS", "MTU", "measured"),
        (
            (
                path["site"],
                path["uplinks"] + (" (metered)" if path["metered"] else ""),
                path["plane"],
                path["state"],
                words.milliseconds(path["delay_us"]),
                words.milliseconds(path["jitter_us"]),
                words.percent(path["loss_ratio"]),
                words.mos(path["mos"]),
                words.NOTHING if path["mtu"] is None else str(path["mtu"]),
                words.ago(path["age_s"]),
            )
            for path in paths
        ),
        right=("delay", "jitter", "loss", "MOS", "MTU", "measured"),
    )


def show_classes(out: Console, classes: Sequence[Row], now: float) -> None:
    _print_table(
        out,
        ("class", "site", "carried by", "meets SLA", "since", "why"),
        (
            (
                row["class_name"],
                row["site"],
                words.carried(row),
                words.yes_or_no(row["meets_sla"]),
                words.since(row["since"], now),
                row["reason"],
            )
            for row in classes
        ),
    )


def show_why(out: Console, why: Row, now: float) -> None:
    out.print(
        f"{why['class_name']} to {why['site']}: {words.carried(why)}"
        + (f", since {words.since(why['since'], now)}" if why["since"] is not None else ""),
        markup=False,
    )
    out.print(why["reason"], markup=False)
    out.print(f"policy: {why['policy']}", markup=False)
    out.print()
    _show_candidates(out, why["candidates"])


def show_classified(out: Console, told: Row, *, is_running: bool) -> None:
    """Without a supervisor (`is_running`) nobody knows what carries the class."""
    out.print(f"class {told['class_name']}: {told['rule']}", markup=False)
    comes = "another site" if told["lan"] is None else f"LAN {told['lan']}"
    leaves = "" if told["set_dscp"] is None else f", leaves with DSCP {told['set_dscp']}"
    out.print(f"comes from {comes}, DSCP {told['dscp']}{leaves}", markup=False)
    if told["site"] is None:
        out.print("stays at this site")
    elif is_running:
        way = (
            f"over {words.carriers(told['carriers'])}" if told["carriers"] else "nowhere: discarded"
        )
        out.print(f"goes to {told['site']} {way}", markup=False)
    else:
        out.print(f"goes to {told['site']}", markup=False)


def show_flows(out: Console, told: Row) -> None:
    flows = told["flows"]
    _print_table(
        out,
        ("class", "protocol", "from", "to", "sent", "received", "site", "carried by", "rule"),
        (
            (
                flow["class_name"],
                flow["protocol"],
                _end(flow["source"], flow["source_port"]),
                _end(flow["destination"], flow["port"]),
                words.rate(flow["sent_bps"]),
                words.rate(flow["received_bps"]),
                flow["site"] or words.NOTHING,
                words.carriers(flow["carriers"]) if flow["site"] else words.NOTHING,
                flow["rule"],
            )
            for flow in flows
        ),
        right=("sent", "received"),
    )
    more = "" if told["is_complete"] else ", and more that were not looked at"
    out.print(f"{len(flows)} of {words.count(told['count'], 'flow')}{more}")


def _end(address: str, port: int | None) -> str:
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def show_history(out: Console, history: Row, now: float) -> None:
    if not history["moves"]:
        out.print("no moves recorded")
        return
    if not history["is_complete"]:
        out.print(f"the newest {len(history['moves'])} moves; --limit shows more\n")
    for move in history["moves"]:
        out.print(
            f"{words.moment(move['at'], now)}  {move['class_name']} to {move['site']}: "
            f"{_left(move)} -> {words.carriers(move['after'])} "
            f"[{words.CAUSES.get(move['cause'], move['cause'])}"
            f"{', voluntary' if move['is_voluntary'] else ''}]",
            markup=False,
        )
        out.print(f"    {move['reason']}", markup=False)
        if move["evidence"]:
            _show_candidates(out, move["evidence"], indent=4)
        out.print()


def _left(move: Row) -> str:
    """What a move leaves: a first one leaves nothing."""
    if not move["before"] and move["cause"] == "initial":
        return "nothing"
    return words.carriers(move["before"])


def _show_candidates(out: Console, candidates: Sequence[Row], indent: int = 0) -> None:
    _print_table(
        out,
        ("", "uplinks", "plane", "tier", "state", "verdict", "delay", "jitter", "loss", "MOS", ""),
        (
            (
                "*" if row["carries"] else "",
                row["uplinks"] + (" (metered)" if row["metered"] else ""),
                words.plane(row["path"]),
                words.NOTHING if row["tier"] is None else str(row["tier"] + 1),
                row["state"],
                words.VERDICTS.get(row["verdict"], row["verdict"]),
                words.milliseconds(row["delay_us"]),
                words.milliseconds(row["jitter_us"]),
                words.percent(row["loss_ratio"]),
                words.mos(row["mos"]),
                "; ".join(row["remarks"]),
            )
            for row in candidates
        ),
        right=("tier", "delay", "jitter", "loss", "MOS"),
        indent=indent,
    )


def _print_table(
    out: Console,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Sequence[str] = (),
    indent: int = 0,
) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    if indent:
        table.padding = (0, 2, 0, 0)
        table.add_column("", width=indent - 2)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        cells = [Text(cell, style=_STYLES.get(cell, "")) for cell in row]
        table.add_row(*([Text("")] if indent else []), *cells)
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as printed:
        out.print(table)
    for line in printed.get().splitlines():
        out.file.write(line.rstrip() + "\n")  # no padding in files


def _labelled(uplink: Row) -> str:
    """Name, label when it is another word, and whether it costs."""
    name, label = str(uplink["name"]), str(uplink["label"])
    remarks = [label] if label != name else []
    remarks += ["metered"] if uplink["metered"] else []
    return f"{name} ({', '.join(remarks)})" if remarks else name
