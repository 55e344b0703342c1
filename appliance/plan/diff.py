"""What must be done to get from what is observed to what is planned.

Pure. It must never produce an operation for something that bears no mark of ours: what is foreign
is not in `observed`, and what is not planned is deleted only if it was observed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from operator import attrgetter

from appliance.plan.plan import (
    SHARED,
    Add,
    Change,
    Delete,
    Device,
    Item,
    Key,
    Kind,
    Observed,
    Op,
    Plan,
    WireguardPeer,
)

# The kernel takes these along when their device goes, so there is no need to delete them.
_GONE_WITH_DEVICE = frozenset(
    {
        *(Kind.WIREGUARD, Kind.PEER, Kind.ADDRESS),
        *(Kind.SHAPER, Kind.REDIRECT, Kind.ONCE, Kind.COPY, Kind.BOND),
    }
)

# What a peer is compared by where its endpoint is the kernel's to learn.
_but_endpoint = attrgetter(
    *(f.name for f in fields(WireguardPeer) if f.compare and f.name != "endpoint")
)
_NOTHING: Plan = {}


def diff(plan: Plan, observed: Observed, asked: Plan = _NOTHING) -> tuple[Op, ...]:
    """The operations that turn `observed` into `plan`, in the order in which to apply them.

    `asked` is the plan that was applied before, as far as that is known: by it a peer that roams is
    told from one that the plan reaches elsewhere now (`is_met`).

    Additions and changes come first, in the order of the kinds, so that what replaces something is
    there before the old thing goes; deletions follow in the opposite order. Empty when nothing is
    to be done.
    """
    wanting = (key for key in unmet(plan, observed, asked) if key is not None)
    return ops_for(plan, observed, wanting, asked)


def unmet(plan: Plan, observed: Observed, asked: Plan = _NOTHING) -> Iterator[Key | None]:
    """For each object of the plan, in any order: its key when it is not as planned, else None.

    Nearly all of a hub's thousands are as planned, so this is where the time of `diff` goes. Who
    cannot spare it in one piece takes some at a time, and then asks for the operations.
    """
    get = observed.get
    for key, item in plan.items():
        seen = get(key)
        is_well = seen is item or (seen is not None and is_met(item, seen, asked.get(key)))
        yield None if is_well else key


def ops_for(
    plan: Plan, observed: Observed, wanting: Iterable[Key], asked: Plan = _NOTHING
) -> tuple[Op, ...]:
    """What `diff` gives, where it is known which keys of the plan are `unmet`."""
    wanted: list[Op] = []
    missing = 0
    for key in sorted(wanting):
        item, seen = plan[key], observed.get(key)
        if seen is None:
            missing += 1
            wanted.append(Add(key, item))
        else:
            wanted.extend(_changed(key, seen, item, asked.get(key)))
    if len(observed) + missing == len(plan):
        return tuple(wanted)  # all that was observed is planned
    stale = [key for key in observed if key not in plan and key.kind not in SHARED]
    gone = {key.ident[0] for key in stale if key.kind is Kind.DEVICE}
    deletes = (
        Delete(key, observed[key])
        for key in sorted(stale, reverse=True)
        if not (key.kind in _GONE_WITH_DEVICE and key.ident[0] in gone)
    )
    return (*wanted, *deletes)


def is_met(item: Item, seen: Item, asked: Item | None = None) -> bool:
    """Is the object already what the plan wants, as far as the plan says?

    A peer that is heard may be anywhere: WireGuard answers to where the last authentic packet came
    from, and a second address, a NAT or a new lease is no drift. Its endpoint is set when the plan
    names another one than was `asked` for before, and when it has fallen silent, because it may
    have moved back. After a restart nothing is known to have been asked: who is heard stays.
    """
    if isinstance(item, WireguardPeer) and _is_learned(item, seen, asked):
        return isinstance(seen, WireguardPeer) and _but_endpoint(seen) == _but_endpoint(item)
    return item == seen


def _is_learned(item: WireguardPeer, seen: Item, asked: Item | None) -> bool:
    """Is a peer's endpoint the kernel's to learn?"""
    is_heard = isinstance(seen, WireguardPeer) and seen.is_heard
    is_another = isinstance(asked, WireguardPeer) and asked.endpoint != item.endpoint
    return item.endpoint is None or (is_heard and not is_another)


def _changed(key: Key, seen: Item, item: Item, asked: Item | None) -> tuple[Op, ...]:
    """One change in place; a device of another type can only be made anew."""
    if isinstance(item, Device) and isinstance(seen, Device) and item.kind != seen.kind:
        return Delete(key, seen), Add(key, item)
    if isinstance(item, WireguardPeer) and _is_learned(item, seen, asked):
        item = replace(item, endpoint=None)
    return (Change(key, seen, item),)
