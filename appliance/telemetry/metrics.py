"""Prometheus metrics, made from a Status when somebody scrapes: nothing is counted twice.

Base units (seconds, bytes, ratios 0..1). What was not measured yet has no sample. prometheus-client
is loaded at the first scrape: a box that nobody scrapes does not carry it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, get_args

from appliance.contract.status import PathStatus, Status
from appliance.contract.wire import UplinkState

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_CARRYING = ("up", "suspect")  # a missing answer is verified before it counts
_PATH = ("site", "plane", "uplinks")


def render_metrics(status: Status) -> bytes:
    """Text exposition format 0.0.4. Takes about 4 us a sample: a hub's scrape belongs in a thread.

    Besides what the status says: `process_*` of this process (memory, CPU time, open files).
    """
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    class Snapshot:
        def collect(self) -> Iterator[Metric]:
            yield from collect(status)

    registry = CollectorRegistry()
    registry.register(Snapshot())
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def collect(status: Status) -> Iterator[Metric]:
    """Every metric family of the status."""
    yield _gauge("info", "This box", ("site", "version"), [((status.site, status.version), 1)])
    yield _gauge("uptime_seconds", "Age of the supervisor", (), [((), status.uptime_s)])
    yield _gauge(
        "config_since_seconds",
        "Unix time since when the configuration is in force",
        ("digest",),
        [((status.config.digest,), status.config.since)],
    )
    yield from _uplinks(status)
    yield from _paths(status.paths)
    yield from _classes(status)
    yield _gauge(
        "warning",
        "Trouble that a user can see: 1 while it lasts",
        ("code", "subject", "severity"),
        [((w.code, w.subject, w.severity), 1) for w in status.warnings],
    )
    yield from _counters(status)


def _uplinks(status: Status) -> Iterator[Metric]:
    yield _gauge(
        "uplink_state",
        "1 for the state that the uplink is in",
        ("uplink", "label", "state"),
        [
            ((uplink.name, uplink.label, state), int(uplink.state == state))
            for uplink in status.uplinks
            for state in get_args(UplinkState)
        ],
    )
    yield _gauge(
        "uplink_metered",
        "1 when traffic over the uplink costs money",
        ("uplink", "label"),
        [((uplink.name, uplink.label), int(uplink.metered)) for uplink in status.uplinks],
    )


def _paths(paths: Sequence[PathStatus]) -> Iterator[Metric]:
    names = [(path.site, path.plane, path.uplinks) for path in paths]
    measures: tuple[tuple[str, str, list[float | None]], ...] = (
        ("up", "1 while the path carries packets", [int(p.state in _CARRYING) for p in paths]),
        ("delay_seconds", "Two-way delay", [_s(p.delay_us) for p in paths]),
        ("jitter_seconds", "Jitter of the worse direction", [_s(p.jitter_us) for p in paths]),
        ("loss_ratio", "Two-way loss", [p.loss_ratio for p in paths]),
        ("loss_forward_ratio", "Loss on the way out", [p.loss_forward_ratio for p in paths]),
        ("loss_backward_ratio", "Loss on the way back", [p.loss_backward_ratio for p in paths]),
        ("mos", "Voice quality by the E-model, 1..4.5", [p.mos for p in paths]),
        ("mtu_bytes", "Largest inner packet", [p.mtu for p in paths]),
        ("probe_interval_seconds", "Pace of probes", [p.probe_interval_s for p in paths]),
        ("measurement_age_seconds", "Age of the newest measurement", [p.age_s for p in paths]),
    )
    for name, text, values in measures:
        samples = [(n, v) for n, v in zip(names, values, strict=True) if v is not None]
        yield _gauge(f"path_{name}", text, _PATH, samples)


def _classes(status: Status) -> Iterator[Metric]:
    yield _gauge(
        "class_carrier_weight",
        "Share of the path in what carries the class to the site",
        ("class", "site", "path"),
        [
            ((row.class_name, row.site, carrier.path), carrier.weight)
            for row in status.classes
            for carrier in row.carriers
        ],
    )
    yield _gauge(
        "class_meets_sla",
        "1 while what carries the class meets its SLA",
        ("class", "site"),
        [
            ((row.class_name, row.site), int(row.meets_sla))
            for row in status.classes
            if row.meets_sla is not None
        ],
    )


def _counters(status: Status) -> Iterator[Metric]:
    counters, recorder = status.counters, status.recorder
    moves = [((cause,), count) for cause, count in counters.moves.items()]
    ops = [((kind,), count) for kind, count in counters.ops.items()]
    yield _counter("moves", "Moves of a class", ("cause",), moves)
    refused = [((why,), count) for why, count in counters.probes_refused.items()]
    yield _counter("ops", "Operations applied to the kernel", ("kind",), ops)
    yield _counter("probes_refused", "Probes of others not answered", ("why",), refused)
    for name, text, value in (
        ("ops_failed", "Operations that the kernel refused", counters.ops_failed),
        ("events", "Events decided", counters.events),
        ("probes_sent", "STAMP probes sent", counters.probes_sent),
        ("probes_answered", "STAMP probes answered", counters.probes_answered),
        ("probes_reflected", "STAMP probes of others answered", counters.probes_reflected),
        ("loop_stalls", "Times that the event loop ran late", counters.loop_stalls),
        ("recorder_dropped", "Entries that the recorder could not keep", recorder.dropped),
    ):
        yield _counter(name, text, (), [((), value)])
    late, octets = counters.loop_late_max_s, recorder.octets
    yield _gauge("loop_late_max_seconds", "The latest that the event loop ran", (), [((), late)])
    yield _gauge("recorder_bytes", "Size of the recordings on disk", (), [((), octets)])
    yield _gauge(
        "recorder_up", "1 while the recorder can write", (), [((), int(recorder.trouble is None))]
    )


_Samples = Sequence[tuple[Sequence[str], float]]


def _gauge(name: str, text: str, labels: Sequence[str], samples: _Samples) -> Metric:
    from prometheus_client.metrics_core import GaugeMetricFamily

    family = GaugeMetricFamily(f"branchline_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _counter(name: str, text: str, labels: Sequence[str], samples: _Samples) -> Metric:
    from prometheus_client.metrics_core import CounterMetricFamily

    family = CounterMetricFamily(f"branchline_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _s(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1e6
