"""What must be done to get from what is observed to what is planned.

Pure. It must never produce an operation for something that bears no mark of ours: what is foreign
is not in `observed`, and what is not planned is deleted only if it was observed.
"""

from dataclasses import replace

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


def diff(plan: Plan, observed: Observed) -> tuple[Op, ...]:
    """The operations that turn `observed` into `plan`, in the order in which to apply them.

    Additions and changes come first, in the order of the kinds, so that what replaces something is
    there before the old thing goes; deletions follow in the opposite order. Empty when nothing is
    to be done.
    """
    wanted: list[Op] = []
    for key in sorted(plan):
        item, seen = plan[key], observed.get(key)
        if seen is None:
            wanted.append(Add(key, item))
        elif seen is not item and not is_met(item, seen):
            wanted.extend(_changed(key, seen, item))
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
    if isinstance(seen, WireguardPeer) and isinstance(item, WireguardPeer):
        learned = seen.endpoint if item.endpoint is None else item.endpoint
        item = replace(item, endpoint=learned)
    return item == seen


def _changed(key: Key, seen: Item, item: Item) -> tuple[Op, ...]:
    """One change in place; a device of another type can only be made anew."""
    if isinstance(item, Device) and isinstance(seen, Device) and item.kind != seen.kind:
        return Delete(key, seen), Add(key, item)
    return (Change(key, seen, item),)
