"""Wire types of decisions: what moved and why, and what would carry a class now."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from appliance.contract.wire import (
    STRICT,
    BitsPerSecond,
    Count,
    Dscp,
    Microseconds,
    Mos,
    MoveCause,
    PathState,
    Port,
    Ratio,
    UnixTime,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class CarrierStatus:
    """One path's share of a class."""

    __pydantic_config__ = STRICT

    path: str  # "hq/1-2"
    uplinks: str  # the labels at both ends, "fibre - cable"
    weight: Annotated[int, Ge(1)] = 1


@dataclass(frozen=True, slots=True)
class Candidate:
    """A path as one class sees it, with the numbers that the decision rests on."""

    __pydantic_config__ = STRICT

    path: str
    uplinks: str
    state: PathState
    verdict: Verdict
    tier: Count | None  # 0 is the best; None: no tier of the policy names the uplink
    delay_us: Microseconds | None  # two-way mean
    jitter_us: Microseconds | None  # the worse direction
    loss_ratio: Ratio | None
    mos: Mos | None
    metered: bool
    carries: bool
    remarks: tuple[str, ...] = ()  # "loss 3.1 % violates 1 %"


@dataclass(frozen=True, slots=True)
class Why:
    """Why a class goes to a site the way it does."""

    __pydantic_config__ = STRICT

    class_name: str
    site: str
    carriers: tuple[CarrierStatus, ...]  # none: its packets are discarded
    reason: str  # the sentence that decided
    cause: MoveCause | None  # None: adopted from the kernel, not decided in this run
    since: UnixTime | None
    policy: str  # "fibre, then lte; loss at most 1 %, MOS at least 3.6; best effort"
    candidates: tuple[Candidate, ...]  # best first
    second: CarrierStatus | None = None  # over which copies go; None: none are sent


@dataclass(frozen=True, slots=True)
class Move:
    """A class was given other paths to a site."""

    __pydantic_config__ = STRICT

    at: UnixTime
    class_name: str
    site: str
    before: tuple[CarrierStatus, ...]
    after: tuple[CarrierStatus, ...]  # none: its packets are discarded
    cause: MoveCause
    is_voluntary: bool  # nothing was wrong with the paths that were left
    reason: str
    evidence: tuple[Candidate, ...] = ()  # the candidates then; none when very many moved at once


@dataclass(frozen=True, slots=True)
class History:
    """Moves from the recorder, the newest last."""

    __pydantic_config__ = STRICT

    moves: tuple[Move, ...]
    is_complete: bool  # False: more moves match than were asked for


@dataclass(frozen=True, slots=True)
class Classified:
    """Which class a flow that begins now is in, by which rule, and where it goes."""

    __pydantic_config__ = STRICT

    class_name: str
    rule: str  # "match 2, application rdp", "by default, application rdp", "no match takes it"
    lan: str | None  # that it comes from; None: from another site
    dscp: Dscp  # as this box takes it: 0 from a LAN that is not trusted
    set_dscp: Dscp | None  # that it leaves with, where its class says so
    site: str | None  # behind which its destination is, or "internet"; None: it stays here
    carriers: tuple[CarrierStatus, ...]  # now; none: discarded, or nobody was asked


@dataclass(frozen=True, slots=True)
class FlowStatus:
    """A flow that the kernel tracks, with its rates over the last moment."""

    __pydantic_config__ = STRICT

    protocol: str  # "tcp", or the IANA number of one that has no name here
    source: str
    source_port: Port | None
    destination: str
    port: Port | None
    class_name: str
    rule: str  # the likely one: a DSCP and a MAC address are not kept
    site: str | None  # at the other end, or "internet"; None: none
    carriers: tuple[CarrierStatus, ...]  # of the class to that site, now; of the flow itself when
    # it has left for the internet: it stays on its uplink
    sent_bps: BitsPerSecond | None  # the way of its first packet; None: not counted
    received_bps: BitsPerSecond | None
    is_fast: bool  # takes the fast path


@dataclass(frozen=True, slots=True)
class Flows:
    """Live flows, the fastest first."""

    __pydantic_config__ = STRICT

    flows: tuple[FlowStatus, ...]
    count: Count  # of flows that match, shown or not
    is_complete: bool  # False: there are more than are looked at
