"""What must be done to get from what is observed to what is planned.

Pure. It must never produce an operation for something that bears no mark of ours: what is foreign
is not in `observed`, and what is not planned is deleted only if it was observed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import fields
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
_GONE_WITH_DEVICE = frozenset({Kind.WIREGUARD, Kind.PEER, Kind.ADDRESS, Kind.SHAPER, Kind.REDIRECT})

# What a peer is compared by when the plan leaves it to the kernel to learn its endpoint.
_but_endpoint = attrgetter(*(f.name for f in fields(WireguardPeer) if f.name != "endpoint"))


def diff(plan: Plan, observed: Observed) -> tuple[Op, ...]:
    """The operations that turn `observed` into `plan`, in the order in which to apply them.

    Additions and changes come first, in the order of the kinds, so that what replaces something is
    there before the old thing goes; deletions follow in the opposite order. Empty when nothing is
    to be done.
    """
    return ops_for(plan, observed, (key for key in unmet(plan, observed) if key is not None))


def unmet(plan: Plan, observed: Observed) -> Iterator[Key | None]:
    """For each object of the plan, in any order: its key when it is not as planned, else None.

    Nearly all of a hub's thousands are as planned, so this is where the time of `diff` goes. Who
    cannot spare it in one piece takes some at a time, and then asks for the operations.
    """
    get = observed.get
    for key, item in plan.items():
        seen = get(key)
        is_well = seen is item or (seen is not None and is_met(item, seen))
        yield None if is_well else key


def ops_for(plan: Plan, observed: Observed, wanting: Iterable[Key]) -> tuple[Op, ...]:
    """What `diff` gives, where it is known which keys of the plan are `unmet`."""
    wanted: list[Op] = []
    missing = 0
    for key in sorted(wanting):
        item, seen = plan[key], observed.get(key)
        if seen is None:
            missing += 1
            wanted.append(Add(key, item))
        else:
            wanted.extend(_changed(key, seen, item))
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


def is_met(item: Item, seen: Item) -> bool:
    """Is the object already what the plan wants, as far as the plan says?"""
    if isinstance(item, WireguardPeer) and item.endpoint is None:
        return isinstance(seen, WireguardPeer) and _but_endpoint(seen) == _but_endpoint(item)
    return item == seen


def _changed(key: Key, seen: Item, item: Item) -> tuple[Op, ...]:
    """One change in place; a device of another type can only be made anew."""
    if isinstance(item, Device) and isinstance(seen, Device) and item.kind != seen.kind:
        return Delete(key, seen), Add(key, item)
    return (Change(key, seen, item),)
