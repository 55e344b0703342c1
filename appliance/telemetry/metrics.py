"""Prometheus metrics, made from a Status when somebody scrapes: nothing is counted twice.

Base units (seconds, bytes, ratios 0..1). What was not measured yet has no sample. prometheus-client
is loaded at the first scrape: a box that nobody scrapes does not carry it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, cast, get_args

from appliance.contract.status import PathStatus, ShaperStatus, Status
from appliance.contract.wire import UplinkState
from appliance.turns import slices

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

Sample = tuple[Sequence[str], float]  # values of the labels, value

_CARRYING = ("up", "suspect")  # a missing answer is verified before it counts
_PATH = ("site", "plane", "uplinks")


class Family(NamedTuple):
    """A metric and its samples. A hub's are made as they are taken."""

    name: str
    text: str
    labels: Sequence[str]
    samples: Iterable[Sample]
    is_counter: bool = False


async def render_metrics(status: Status) -> AsyncIterator[bytes]:
    """Text exposition format 0.0.4, in pieces. A hub has 50,000 samples: a slice each turn.

    Besides what the status says: `process_*` of this process (memory, CPU time, open files).
    """
    await asyncio.to_thread(import_module, "prometheus_client")  # the first time takes long
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    for family in families(status):
        heading = _render(family, ())
        yield heading
        async for samples in slices(family.samples):
            yield _render(family, samples).removeprefix(heading)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    yield generate_latest(registry)


class _Only(NamedTuple):
    """What prometheus-client calls a collector: of one metric."""

    metric: Metric

    def collect(self) -> Iterable[Metric]:
        return (self.metric,)


def _render(family: Family, samples: Iterable[Sample]) -> bytes:
    """Some of the samples, under the heading of the family."""
    from prometheus_client import generate_latest
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    kind = CounterMetricFamily if family.is_counter else GaugeMetricFamily
    metric = kind(f"branchline_{family.name}", family.text, labels=family.labels)
    for values, value in samples:
        metric.add_metric(values, value)
    return generate_latest(cast("Collector", _Only(metric)))


def families(status: Status) -> Iterator[Family]:
    """Every metric family of the status."""
    yield Family("info", "This box", ("site", "version"), [((status.site, status.version), 1)])
    yield Family("uptime_seconds", "Age of the supervisor", (), [((), status.uptime_s)])
    yield Family(
        "config_since_seconds",
        "Unix time since when the configuration is in force",
        ("digest",),
        [((status.config.digest,), status.config.since)],
    )
    yield from _uplinks(status)
    yield from _paths(status.paths)
    yield from _classes(status)
    yield Family(
        "warning",
        "Trouble that a user can see: 1 while it lasts",
        ("code", "subject", "severity"),
        (((w.code, w.subject, w.severity), 1) for w in status.warnings),
    )
    yield from _counters(status)


def _uplinks(status: Status) -> Iterator[Family]:
    yield Family(
        "uplink_state",
        "1 for the state that the uplink is in",
        ("uplink", "label", "state"),
        [
            ((uplink.name, uplink.label, state), int(uplink.state == state))
            for uplink in status.uplinks
            for state in get_args(UplinkState)
        ],
    )
    yield Family(
        "uplink_metered",
        "1 when traffic over the uplink costs money",
        ("uplink", "label"),
        [((uplink.name, uplink.label), int(uplink.metered)) for uplink in status.uplinks],
    )

    yield from _shapers(status)


def _shapers(status: Status) -> Iterator[Family]:
    for name, text, measure in _LINES:
        samples = (
            ((uplink.name, uplink.label, shaper.direction), value)
            for uplink in status.uplinks
            for shaper in uplink.shapers
            if (value := measure(shaper)) is not None
        )
        yield Family(f"shaper_{name}", text, ("uplink", "label", "direction"), samples)


def _paths(paths: Sequence[PathStatus]) -> Iterator[Family]:
    for name, text, measure in _MEASURES:
        yield Family(f"path_{name}", text, _PATH, _measured(paths, measure))


def _measured(
    paths: Sequence[PathStatus], measure: Callable[[PathStatus], float | None]
) -> Iterator[Sample]:
    for path in paths:
        value = measure(path)
        if value is not None:
            yield (path.site, path.plane, path.uplinks), value


def _classes(status: Status) -> Iterator[Family]:
    yield Family(
        "class_carrier_weight",
        "Share of the path in what carries the class to the site",
        ("class", "site", "path"),
        (
            ((row.class_name, row.site, carrier.path), carrier.weight)
            for row in status.classes
            for carrier in row.carriers
        ),
    )
    yield Family(
        "class_meets_sla",
        "1 while what carries the class meets its SLA",
        ("class", "site"),
        (
            ((row.class_name, row.site), int(row.meets_sla))
            for row in status.classes
            if row.meets_sla is not None
        ),
    )


def _counters(status: Status) -> Iterator[Family]:
    counters, recorder = status.counters, status.recorder
    moves = [((cause,), count) for cause, count in counters.moves.items()]
    ops = [((kind,), count) for kind, count in counters.ops.items()]
    yield Family("moves", "Moves of a class", ("cause",), moves, is_counter=True)
    refused = [((why,), count) for why, count in counters.probes_refused.items()]
    yield Family("ops", "Operations applied to the kernel", ("kind",), ops, is_counter=True)
    yield Family(
        "probes_refused", "Probes of others not answered", ("why",), refused, is_counter=True
    )
    for name, text, value in (
        ("ops_failed", "Operations that the kernel refused", counters.ops_failed),
        ("events", "Events decided", counters.events),
        ("probes_sent", "STAMP probes sent", counters.probes_sent),
        ("probes_answered", "STAMP probes answered", counters.probes_answered),
        ("probes_reflected", "STAMP probes of others answered", counters.probes_reflected),
        ("loop_stalls", "Times that the event loop ran late", counters.loop_stalls),
        ("recorder_dropped", "Entries that the recorder could not keep", recorder.dropped),
    ):
        yield Family(name, text, (), [((), value)], is_counter=True)
    late, octets = counters.loop_late_max_s, recorder.octets
    yield Family("loop_late_max_seconds", "The latest that the event loop ran", (), [((), late)])
    yield Family("recorder_bytes", "Size of the recordings on disk", (), [((), octets)])
    yield Family(
        "recorder_up", "1 while the recorder can write", (), [((), int(recorder.trouble is None))]
    )


def _s(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1e6


_LINES: tuple[tuple[str, str, Callable[[ShaperStatus], float | None]], ...] = (
    ("rate_bits_per_second", "Rate of the shaper", lambda s: s.rate_bps),
    ("rate_least_bits_per_second", "The least that it may be", lambda s: s.least_bps),
    ("rate_most_bits_per_second", "The most that it may be", lambda s: s.most_bps),
    ("used_bits_per_second", "What passes the shaper", lambda s: s.used_bps),
    ("carried_bits_per_second", "What the line carried when it was full", lambda s: s.carried_bps),
    ("queue_seconds", "What waits in the line behind the shaper", lambda s: _s(s.queue_us)),
)
_MEASURES: tuple[tuple[str, str, Callable[[PathStatus], float | None]], ...] = (
    ("up", "1 while the path carries packets", lambda p: int(p.state in _CARRYING)),
    ("delay_seconds", "Two-way delay", lambda p: _s(p.delay_us)),
    ("jitter_seconds", "Jitter of the worse direction", lambda p: _s(p.jitter_us)),
    ("loss_ratio", "Two-way loss", lambda p: p.loss_ratio),
    ("loss_forward_ratio", "Loss on the way out", lambda p: p.loss_forward_ratio),
    ("loss_backward_ratio", "Loss on the way back", lambda p: p.loss_backward_ratio),
    ("mos", "Voice quality by the E-model, 1..4.5", lambda p: p.mos),
    ("mtu_bytes", "Largest inner packet", lambda p: p.mtu),
    ("probe_interval_seconds", "Pace of probes", lambda p: p.probe_interval_s),
    ("measurement_age_seconds", "Age of the newest measurement", lambda p: p.age_s),
)
