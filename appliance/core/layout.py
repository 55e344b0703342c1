"""What follows from the intent alone: who may carry what, and what paths are called.

Made once per intent, so that deciding looks nothing up in the configuration. Sites whose uplinks
look alike share everything but their name, which keeps a hub with a thousand sites small.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from appliance.config.intent import (
    Fallback,
    Intent,
    Internet,
    Mode,
    Peer,
    PeerUplink,
    Policy,
    Sla,
    Uplink,
    When,
    permits,
)
from appliance.contract.ids import ClassName, Label, Plane, SiteName, Slot, exit_plane
from appliance.core.mos import loss_at
from appliance.core.sequential import LossLimit, loss_limit

MOS_LOSS_DELAY_US = 100_000.0  # the two-way delay at which a MOS limit is turned into one on loss


class Candidate(NamedTuple):
    """A path that a policy permits for a class."""

    plane: Plane
    tier: int  # 0 is the best; the worse of both ends
    is_metered: bool  # either end
    weight: int
    name: str  # "fibre (1-1)"
    up_bps: int | None = None  # what our uplink sends at most, as far as that is given
    down_bps: int | None = None  # what the far one receives


@dataclass(frozen=True, slots=True)
class SlaPlan:
    """An SLA with the loss tests that judge it: places in `Layout.limits`, or None."""

    sla: Sla
    loss: int | None
    mos_loss: int | None


@dataclass(frozen=True, slots=True)
class ClassPlan:
    """How a class chooses, for sites of one shape."""

    name: ClassName
    policy: Policy
    sla: int  # place in `Layout.slas`
    candidates: tuple[Candidate, ...]
    is_single: bool
    is_fail_closed: bool
    is_duplicated: bool = False
    is_wary: bool = False  # duplicated only while impaired
    is_bonded: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """What sites with equal uplinks have in common."""

    planes: tuple[Plane, ...]
    names: Mapping[Plane, str]
    classes: tuple[ClassPlan, ...]
    used: frozenset[Plane]  # candidates of any class
    metered: frozenset[Plane]
    is_wary: bool = False  # a class is


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything derived from one intent."""

    shapes: Mapping[SiteName, Shape]
    internet: Shape
    slas: tuple[SlaPlan, ...]
    judged: tuple[int, ...]  # places of the SLAs that limit anything
    limits: tuple[LossLimit, ...]
    uplinks: Mapping[Slot, Uplink]
    remote_slots: tuple[Slot, ...]
    reach: Mapping[Slot, tuple[int, int]]  # uplink -> numbers of its paths and of their sites
    # Local uplink -> those that may stand in for it, the best first.
    stand_ins: Mapping[Slot, tuple[Slot, ...]]


def lay_out(intent: Intent) -> Layout:
    """Derive the layout of an intent. Pure; a second or less for a thousand sites."""
    slas, limits = _slas(intent)
    places = {plan.sla: place for place, plan in enumerate(slas)}
    known: dict[tuple[tuple[Slot, Label, bool, int | None], ...], Shape] = {}
    shapes: dict[SiteName, Shape] = {}
    for peer in intent.peers:
        key = tuple((u.slot, u.label, u.metered, u.down_bps) for u in peer.uplinks)
        shape = known.get(key)
        if shape is None:
            shape = known[key] = _shape(intent, peer, places)
        shapes[peer.name] = shape
    remote = tuple(sorted({u.slot for p in intent.peers for u in p.uplinks}))
    paths = sum([len(p.uplinks) for p in intent.peers])
    return Layout(
        shapes=shapes,
        internet=_internet(intent, places),
        slas=slas,
        judged=tuple([place for place, plan in enumerate(slas) if not plan.sla.is_empty]),
        limits=limits,
        uplinks={u.slot: u for u in intent.uplinks},
        remote_slots=remote,
        reach={u.slot: (paths, len(intent.peers)) for u in intent.uplinks},
        stand_ins={u.slot: _stand_ins(intent, u) for u in intent.uplinks},
    )


def are_neighbours(one: Plane, other: Plane) -> bool:
    """Do two paths to one site share an uplink at either end?"""
    return one != other and (one.local == other.local or one.remote == other.remote)


def _slas(intent: Intent) -> tuple[tuple[SlaPlan, ...], tuple[LossLimit, ...]]:
    ratios: list[float] = []

    def place(ratio: float | None) -> int | None:
        if ratio is None or ratio >= 1:
            return None
        if ratio not in ratios:
            ratios.append(ratio)
        return ratios.index(ratio)

    slas = tuple(
        SlaPlan(
            sla,
            place(sla.loss_ratio),
            place(None if sla.mos is None else loss_at(sla.mos, MOS_LOSS_DELAY_US)),
        )
        for sla in dict.fromkeys(p.sla for p in intent.policies)
    )
    return slas, tuple([loss_limit(ratio) for ratio in ratios])


def _shape(intent: Intent, peer: Peer, places: Mapping[Sla, int]) -> Shape:
    ends = {
        Plane(own.slot, far.slot): (own, far)
        for own in sorted(intent.uplinks, key=lambda u: u.slot)
        for far in sorted(peer.uplinks, key=lambda u: u.slot)
    }
    names = {plane: _name(plane, own, far, peer) for plane, (own, far) in ends.items()}
    classes = []
    for policy in intent.policies:
        tier_of = {label: tier for tier, labels in enumerate(policy.tiers) for label in labels}
        candidates = []
        for plane, (own, far) in ends.items():
            tier = _tier(tier_of, own.label, far.label)
            is_metered = own.metered or far.metered
            if tier is not None and (policy.metered or not is_metered):
                up_bps = None if own.shaping is None else own.shaping.up_bps
                rates = up_bps, far.down_bps
                named = Candidate(plane, tier, is_metered, own.weight, names[plane], *rates)
                candidates.append(named)
        classes.append(_class_plan(policy, places, candidates))
    return Shape(
        tuple(ends),
        names,
        tuple(classes),
        frozenset(c.plane for plan in classes for c in plan.candidates),
        frozenset(plane for plane, (own, far) in ends.items() if own.metered or far.metered),
        any(plan.is_wary for plan in classes),
    )


def _class_plan(
    policy: Policy,
    places: Mapping[Sla, int],
    candidates: list[Candidate],
    *,
    has_far_end: bool = True,
) -> ClassPlan:
    """Without a far end nobody would let only one of two packets in, or see one flow as one."""
    is_duplicated = has_far_end and policy.mode is Mode.DUPLICATE
    return ClassPlan(
        policy.class_name,
        policy,
        places[policy.sla],
        tuple(candidates),
        policy.mode not in {Mode.SHARE, Mode.BOND},
        policy.fallback is Fallback.FAIL_CLOSED,
        is_duplicated,
        is_duplicated and policy.when is When.IMPAIRED,
        has_far_end and policy.mode is Mode.BOND,
    )


def _internet(intent: Intent, places: Mapping[Sla, int]) -> Shape:
    """The internet as one more site: its paths are the ways out of the uplinks themselves."""
    names = {exit_plane(u.slot): str(u.name) for u in intent.uplinks}
    classes = []
    for policy in intent.policies:
        tier_of = {label: tier for tier, labels in enumerate(policy.tiers) for label in labels}
        candidates = [
            Candidate(
                plane := exit_plane(u.slot), tier_of[u.label], u.metered, u.weight, names[plane]
            )
            for u in sorted(intent.uplinks, key=lambda u: u.slot)
            if policy.internet is Internet.LOCAL and permits(policy, u)
        ]
        classes.append(_class_plan(policy, places, candidates, has_far_end=False))
    return Shape(
        tuple(names),
        names,
        tuple(classes),
        frozenset(c.plane for plan in classes for c in plan.candidates),
        frozenset(exit_plane(u.slot) for u in intent.uplinks if u.metered),
    )


def _tier(tier_of: Mapping[Label, int], own: Label, far: Label) -> int | None:
    """The worse of both ends. A far end's label that the policy does not list does not matter."""
    tier = tier_of.get(own)
    return None if tier is None else max(tier, tier_of.get(far, tier))


def _name(plane: Plane, own: Uplink, far: PeerUplink, peer: Peer) -> str:
    if own.label == far.label or len(peer.uplinks) == 1:
        return f"{own.label} ({plane})"
    return f"{own.label} to {far.label} ({plane})"


def _stand_ins(intent: Intent, dead: Uplink) -> tuple[Slot, ...]:
    """The uplinks that every class which may use this one may use as well.

    A stand-in takes all that went by the dead uplink, before any class is asked.
    """
    policy = intent.policy(intent.default_class.name)
    tier_of = {label: tier for tier, labels in enumerate(policy.tiers) for label in labels}
    last = len(policy.tiers)
    users = [p for p in intent.policies if permits(p, dead)]
    others = [u for u in intent.uplinks if u != dead and all(permits(p, u) for p in users)]
    others.sort(key=lambda u: (tier_of.get(u.label, last), u.metered, u.slot))
    return tuple([u.slot for u in others])
