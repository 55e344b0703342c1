"""Traffic control by `tc`: shapers and the filters that lead to them (tc(8)).

Applied and observed in batches, one program for each. What is observed comes as JSON, and only
what bears our handle or our priorities is looked at. Never on the failover path.
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import Any

from appliance.config.addressing import (
    CLASS_MARK_MASK,
    DEVICE_PREFIX,
    FILTER_PRIORITY_FIRST,
    FILTER_PRIORITY_LAST,
    QDISC_HANDLE,
)
from appliance.kernel.htb import is_hierarchy, read_hierarchy
from appliance.kernel.kernel import KernelError
from appliance.kernel.process import ProcessError, run
from appliance.plan.plan import (
    Clsact,
    Delete,
    Item,
    Key,
    Kind,
    Op,
    Redirect,
    Shaper,
)
from appliance.plan.text import render_op

KINDS = frozenset({Kind.SHAPER, Kind.CLSACT, Kind.REDIRECT})
HOOKS = ("egress", "ingress")
STRANGE = "something else"  # what somebody made of an object of ours
_FAILED = re.compile(r"^Command failed .*:([0-9]+)$")
_EXISTS = "Exclusivity flag on"  # there is such a qdisc already


async def apply(ops: Sequence[Op]) -> None:
    """Carry out operations of our kinds. Raises KernelError for the first that fails."""
    lines: list[str] = []
    owners: list[tuple[Op, bool]] = []  # and whether failing matters
    for op in ops:
        if op.key.kind is Kind.REDIRECT and not isinstance(op, Delete):
            # A filter cannot be replaced, and added twice it would be there twice.
            lines.append(render_op(Delete(op.key, op.item)))
            owners.append((op, False))
        for line in render_op(op).splitlines():
            lines.append(line)
            owners.append((op, not (isinstance(op, Delete) or " del " in line)))
    script = "".join(f"{line.removeprefix('tc ')}\n" for line in lines)
    try:
        done = await run(["tc", "-force", "-batch", "-"], input=script.encode())
    except ProcessError as error:
        raise KernelError(ops[0], 0, str(error)) from error
    for number, text in failures(done.stderr.decode(errors="replace")):
        if not 1 <= number <= len(owners):
            raise KernelError(ops[0], 0, text)
        op, matters = owners[number - 1]
        if matters and not (isinstance(op.item, Clsact) and _EXISTS in text):
            raise KernelError(op, 0, text)


def failures(told: str) -> Iterator[tuple[int, str]]:
    """What `tc` said of each line that it could not carry out, by number."""
    said: list[str] = []
    for line in told.splitlines():
        if (match := _FAILED.match(line)) is None:
            said.append(line.strip())
            continue
        yield int(match[1]), ": ".join(said)[:300]
        said.clear()


async def observe(devices: Collection[str]) -> dict[Key, Item]:
    """Shapers, filters of ours, and which of these devices have a clsact qdisc, ours or not.

    `devices` are those on which filters may hang. Raises KernelError.
    """
    asked = [(device, hook) for device in sorted(devices) for hook in HOOKS]
    questions = ["qdisc show", *(f"filter show dev {device} {hook}" for device, hook in asked)]
    qdiscs, *filters = await _ask(questions)
    found = dict(each_qdisc(qdiscs))
    for (device, hook), listing in zip(asked, filters, strict=True):
        found.update(each_filter(device, hook, listing))
    found.update(await _hierarchies(qdiscs))
    return found


async def _hierarchies(qdiscs: list[dict[str, Any]]) -> dict[Key, Item]:
    """The shapers that are hierarchies of ours."""
    devices = sorted(
        str(each.get("dev"))
        for each in qdiscs
        if is_hierarchy(each) and str(each.get("dev")).startswith(DEVICE_PREFIX)
    )
    if not devices:
        return {}
    about = ("class show dev {0}", "filter show dev {0} parent {1:x}:")
    questions = [each.format(device, QDISC_HANDLE) for device in devices for each in about]
    answers = await _ask(questions, "-d")
    found: dict[Key, Item] = {}
    for device, classes, filters in zip(devices, answers[::2], answers[1::2], strict=True):
        own = [each for each in qdiscs if each.get("dev") == device]
        found[Key(Kind.SHAPER, (device,))] = read_hierarchy(own, classes, filters)
    return found


async def _ask(questions: Sequence[str], *options: str) -> list[list[dict[str, Any]]]:
    """The answers of `tc` to several questions. Raises KernelError."""
    script = "".join(f"{question}\n" for question in questions)
    try:
        done = await run(["tc", "-json", *options, "-batch", "-"], input=script.encode())
    except ProcessError as error:
        raise KernelError(None, 0, str(error)) from error
    if done.status:
        text = done.stderr.decode(errors="replace").strip()
        raise KernelError(None, 0, text[:300])
    return listings(done.stdout.decode(errors="replace"), len(questions))


def listings(text: str, count: int) -> list[list[dict[str, Any]]]:
    """The answers to so many questions, one JSON array after the other. Raises KernelError."""
    decoder, found, at = json.JSONDecoder(), [], 0
    try:
        while text[at:].strip():
            start = text.index("[", at)
            value, at = decoder.raw_decode(text, start)
            found.append([each for each in value if isinstance(each, dict)])
    except (ValueError, RecursionError) as error:
        raise KernelError(None, 0, f"tc printed no JSON: {error}") from error
    if len(found) != count:
        raise KernelError(None, 0, f"tc answered {len(found)} of {count} questions")
    return found


def each_qdisc(listing: list[dict[str, Any]]) -> Iterator[tuple[Key, Item]]:
    """Shapers of ours, and clsact qdiscs."""
    for each in listing:
        device, kind = str(each.get("dev")), each.get("kind")
        if kind == "clsact":
            yield Key(Kind.CLSACT, (device,)), Clsact()
        elif (
            kind == "cake"
            and device.startswith(DEVICE_PREFIX)
            and each.get("handle") == f"{QDISC_HANDLE:x}:"
        ):
            yield Key(Kind.SHAPER, (device,)), _shaper(_mapping(each.get("options")))


def _shaper(options: dict[str, Any]) -> Shaper:
    is_ours = options.get("diffserv") == "diffserv4" and options.get("nat") is True
    rate, overhead = options.get("bandwidth"), options.get("overhead")
    if not (is_ours and isinstance(rate, int) and isinstance(overhead, int)):
        return Shaper(0, 0, is_ingress=False)
    is_ingress, keeps_gso = options.get("ingress") is True, options.get("split_gso") is False
    return Shaper(8 * rate, overhead, is_ingress, keeps_gso=keeps_gso)


def each_filter(
    device: str, hook: str, listing: list[dict[str, Any]]
) -> Iterator[tuple[Key, Item]]:
    """Filters of ours. Where somebody put another beside one, both are something else."""
    ours = []
    for each in listing:
        priority = each.get("pref")
        if (
            isinstance(priority, int)
            and FILTER_PRIORITY_FIRST <= priority <= FILTER_PRIORITY_LAST
            and "options" in each  # the entry of a filter, not of its priority
            # Programs on planes are another matter: kernel/duplicate.py.
            and not (each.get("kind") == "bpf" and device.startswith(DEVICE_PREFIX))
        ):
            ours.append((Key(Kind.REDIRECT, (device, hook, priority)), each))
    several = {before for (before, _), (key, _) in pairwise(ours) if before == key}
    for key, each in ours:
        protocol = str(each.get("protocol"))
        seen = None if key in several else _redirect(hook, protocol, each)
        yield key, seen or Redirect(protocol, STRANGE)


def _redirect(hook: str, protocol: str, each: dict[str, Any]) -> Redirect | None:
    options = _mapping(each.get("options"))
    actions = options.get("actions")
    if not (isinstance(actions, list) and actions):
        return None
    *others, action = [_mapping(each) for each in actions]
    if others and not _marks(others):
        return None
    keys = _mapping(options.get("keys"))
    ports = None
    if each.get("kind") == "flower":
        ports = _ports(keys, "src_port" if hook == "egress" else "dst_port")
        if ports is None:
            return None
    elif each.get("kind") != "matchall":
        return None
    if action.get("kind") == "gact":
        passes = not others and _mapping(action.get("control_action")).get("type") == "pass"
        return Redirect(protocol, None, ports) if passes else None
    if (action.get("kind"), action.get("mirred_action"), action.get("direction")) != (
        "mirred",
        "redirect",
        "egress",
    ):
        return None
    return Redirect(protocol, str(action.get("to_dev")), ports, bool(others))


def _marks(actions: list[dict[str, Any]]) -> bool:
    """Is this the one action that gives a packet the class of its flow?"""
    told = [(each.get("kind"), each.get("cpmark"), each.get("zone")) for each in actions]
    return told == [("ctinfo", f"{CLASS_MARK_MASK:#010x}", 0)]


def _ports(keys: dict[str, Any], side: str) -> tuple[int, int] | None:
    """The range of ports that a filter is about, if it is about nothing else."""
    if set(keys) != {"eth_type", "ip_proto", side} or keys["ip_proto"] != "udp":
        return None
    port = keys[side]
    if isinstance(port, int):
        return port, port
    first, last = _mapping(port).get("start"), _mapping(port).get("end")
    return (first, last) if isinstance(first, int) and isinstance(last, int) else None


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
