"""A recording of a box with two lines to one site, whose better line loses probes for a while."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface, ip_address
from pathlib import Path

from appliance.config.intent import Intent
from appliance.config.load import parse_config
from appliance.contract.ids import PathId, Plane, SiteName, Slot
from appliance.core.codec import encode_event
from appliance.core.decide import decide, initial_state, next_deadline
from appliance.core.events import (
    DeadlinePassed,
    Event,
    IntentChanged,
    PathsSampled,
    SteeringAdopted,
    UplinkChanged,
    UplinkFacts,
)
from appliance.stamp.sample import Sample

CONFIG = """
version: 1
site: {name: branch-a, id: 1}
fleet: {overlay: "fd12:3456:789a::/48"}
uplinks:
  - {name: fibre, device: eth0, address: [203.0.113.2/24], gateway: [203.0.113.1]}
  - {name: dsl, device: eth1, address: [198.51.100.2/24], gateway: [198.51.100.1]}
lans:
  - {name: office, device: lan0, address: [192.168.1.1/24]}
peers:
  - name: hq
    id: 3
    public_key: n3G605KN4teQgPzou1RLcSTTvOxn0Bsqg06plE924H8=
    uplinks: [{label: transit, endpoint: [192.0.2.3]}]
    prefixes: [192.168.3.0/24]
classes:
  - {name: voice, match: [{dscp: ef}]}
policies:
  - {class: voice, tiers: [fibre, dsl], sla: {loss: LIMIT}, hold: 60 s}
  - {class: default, tiers: [fibre, dsl]}
"""
HQ = SiteName("hq")
FIBRE, DSL = (PathId(HQ, Plane(Slot(slot), Slot(1))) for slot in (1, 2))


def config(limit: str = "1 %") -> str:
    return CONFIG.replace("LIMIT", limit)


@dataclass(frozen=True)
class Line:
    path: PathId
    delay_us: int


LINES = (Line(FIBRE, 20_000), Line(DSL, 35_000))


def events(intent: Intent) -> list[tuple[float, Event]]:
    """Half a minute of good lines, a minute in which fibre loses 5 %, five more good ones."""
    told: list[tuple[float, Event]] = [(100.0, IntentChanged(intent)), (100.0, SteeringAdopted())]
    for slot, address in ((1, "203.0.113.2/24"), (2, "198.51.100.2/24")):
        interface = IPv4Interface(address)
        facts = UplinkFacts(
            Slot(slot),
            has_device=True,
            has_carrier=True,
            addresses=(interface,),
            gateways=(ip_address(int(interface.network.network_address) + 1),),
        )
        told.append((100.0, UplinkChanged(facts)))
    for tick in range(1, 1600):
        is_bad = 120 <= tick < 360
        told.append((100.0 + tick / 4, PathsSampled(tuple(_samples(tick, is_bad=is_bad)))))
    return told


def _samples(tick: int, *, is_bad: bool) -> list[tuple[PathId, Sample]]:
    found = []
    for line in LINES:
        lost = int(line.path is FIBRE and is_bad and tick % 2 == 0)
        sample = Sample(
            sent=10,
            answered=10 - lost,
            lost=lost,
            lost_forward=lost,
            delay_us=line.delay_us,
            delay_min_us=line.delay_us - 300,
            delay_max_us=line.delay_us + 300,
            jitter_forward_us=200,
            jitter_backward_us=200,
            span_us=250_000,
        )
        found.append((line.path, sample))
    return found


def with_deadlines(happened: list[tuple[float, Event]]) -> Iterator[tuple[float, Event]]:
    """What a supervisor records: the deadlines that its core asked for are events too."""
    state = initial_state()
    for now, event in happened:
        while (due := next_deadline(state)) is not None and due <= now:
            passed = max(due, state.now)
            state, _ = decide(state, DeadlinePassed(), passed)
            yield passed, DeadlinePassed()
        state, _ = decide(state, event, now)
        yield now, event


def write_recording(path: Path) -> None:
    """A file as the recorder makes it."""
    intent = parse_config(config(), "config.yaml")
    lines = [b'{"run": "a", "wall": 1750000000.0, "now": 100.0, "preamble": 0}']
    lines += [encode_event(now, event) for now, event in with_deadlines(events(intent))]
    path.write_bytes(b"\n".join(lines) + b"\n")
