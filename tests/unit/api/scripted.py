"""A status source that tells one fixed story: what the API and the command line are tested with."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace

from appliance.api.feed import Feed, Subscription
from appliance.api.problems import UnknownName
from appliance.api.source import FlowQuery, HistoryQuery, Part, Row
from appliance.config.errors import ConfigError, Problem
from appliance.config.flow import Flow
from appliance.config.intent import Intent
from appliance.contract.decision import (
    Candidate,
    CarrierStatus,
    Classified,
    Flows,
    FlowStatus,
    History,
    Move,
    Why,
)
from appliance.contract.ids import ClassName, SiteName
from appliance.contract.status import (
    ClassStatus,
    ConfigStatus,
    Counters,
    Health,
    PathStatus,
    RecorderStatus,
    Reloaded,
    Status,
    UplinkStatus,
    WarningStatus,
)
from appliance.telemetry.metrics import render_metrics

NOW = 1_750_000_000.0  # 2025-06-15 15:06:40 UTC

FIBRE = CarrierStatus("hq/1-1", "fibre - fibre")
LTE = CarrierStatus("hq/2-1", "lte - fibre")

MOVE = Move(
    at=NOW - 65,
    class_name="voice",
    site="hq",
    before=(FIBRE,),
    after=(LTE,),
    cause="sla-violated",
    is_voluntary=False,
    reason="voice to hq leaves fibre (1-1): loss 3.1 % over 96 packets violates 1 %; "
    "lte (2-1) meets it with 0.0 % and 44 ms.",
    evidence=(
        Candidate(
            path="hq/2-1",
            uplinks="lte - fibre",
            state="up",
            verdict="meets",
            tier=1,
            delay_us=44_000,
            jitter_us=2100,
            loss_ratio=0.0,
            mos=4.31,
            metered=True,
            carries=False,
        ),
        Candidate(
            path="hq/1-1",
            uplinks="fibre - fibre",
            state="up",
            verdict="violates",
            tier=0,
            delay_us=20_100,
            jitter_us=600,
            loss_ratio=0.031,
            mos=3.52,
            metered=False,
            carries=True,
            remarks=("loss 3.1 % violates 1 %",),
        ),
    ),
)
FIRST = Move(
    at=NOW - 90_000,
    class_name="voice",
    site="hq",
    before=(),
    after=(FIBRE,),
    cause="initial",
    is_voluntary=False,
    reason="voice to hq starts on fibre (1-1), the first choice.",
)
STATUS = Status(
    site="branch-a",
    site_id=1,
    version="0.1.0",
    stage="running",
    at=NOW - 0.2,
    uptime_s=90_061,
    config=ConfigStatus("/etc/branchline/config.yaml", "5f1d3c0a9b77", NOW - 90_061),
    uplinks=(
        UplinkStatus(
            name="fibre",
            slot=1,
            label="fibre",
            device="eth0",
            state="up",
            detail="3 of 3 targets answered",
            since=NOW - 90_060,
            addresses=("198.51.100.2/24", "2001:db8:1::2/64"),
            gateways=("198.51.100.1",),
            metered=False,
            age_s=3.5,
        ),
        UplinkStatus(
            name="modem",
            slot=2,
            label="lte",
            device="wwan0",
            state="down",
            detail="no carrier",
            since=NOW - 12,
            addresses=(),
            gateways=(),
            metered=True,
        ),
    ),
    paths=(
        PathStatus(
            path="hq/1-1",
            site="hq",
            plane="1-1",
            uplinks="fibre - fibre",
            device="bl-1-1",
            state="up",
            since=NOW - 90_059,
            delay_us=20_100,
            jitter_us=600,
            loss_ratio=0.031,
            loss_forward_ratio=0.031,
            loss_backward_ratio=0.0,
            mos=3.52,
            mtu=1420,
            metered=False,
            probe_interval_s=0.02,
            age_s=0.1,
        ),
        PathStatus(
            path="hq/2-1",
            site="hq",
            plane="2-1",
            uplinks="lte - fibre",
            device="bl-2-1",
            state="unknown",
            since=NOW - 12,
            delay_us=None,
            jitter_us=None,
            loss_ratio=None,
            loss_forward_ratio=None,
            loss_backward_ratio=None,
            mos=None,
            mtu=None,
            metered=True,
            probe_interval_s=1.0,
            age_s=None,
        ),
    ),
    classes=(
        ClassStatus(
            "voice",
            "hq",
            (LTE,),
            meets_sla=True,
            since=NOW - 65,
            cause="sla-violated",
            reason=MOVE.reason,
            second=FIBRE,
        ),
        ClassStatus(
            "bulk",
            "hq",
            (replace(FIBRE, weight=3), LTE),
            meets_sla=None,
            since=NOW - 90_000,
            cause=None,
            reason="bulk to hq was found on fibre (1-1) and lte (2-1).",
        ),
        ClassStatus(
            "default",
            "hq",
            (),
            meets_sla=False,
            since=NOW - 12,
            cause="no-path",
            reason="default to hq is discarded: no path meets its SLA and it fails closed.",
        ),
    ),
    warnings=(
        WarningStatus("uplink-down", "modem", "critical", "Uplink modem has no carrier.", NOW - 12),
    ),
    recorder=RecorderStatus(octets=4096),
    counters=Counters(
        moves={"initial": 3, "sla-violated": 1},
        ops={"route": 12},
        events=1000,
        probes_sent=500,
        probes_answered=490,
        probes_refused={"malformed": 0, "forged": 7, "limited": 0},
        loop_late_max_s=0.004,
    ),
)
WHY = Why(
    class_name="voice",
    site="hq",
    carriers=(LTE,),
    reason=MOVE.reason,
    cause="sla-violated",
    since=NOW - 65,
    policy="fibre, then lte; loss at most 1 %; sent twice; best effort",
    candidates=MOVE.evidence,
    second=FIBRE,
)
PLAN = ("ip link add bl-1-1 type wireguard", "ip rule add fwmark 0x10000000/0xf0000000 table 1")
REFUSED = ConfigError(
    "config.yaml", [Problem("/uplinks/0/device", 4, 13, "unknown device", "is it plugged in?")]
)


CLASSIFIED = Classified(
    class_name="voice",
    rule="match 2, application sip",
    lan="office",
    dscp=0,
    set_dscp=46,
    site="hq",
    carriers=(LTE,),
)


FLOWS = Flows(
    flows=(
        FlowStatus(
            protocol="tcp",
            source="192.0.2.9",
            source_port=40000,
            destination="198.51.100.7",
            port=873,
            class_name="bulk",
            rule="match 2",
            site="hq",
            carriers=(FIBRE,),
            sent_bps=18_400_000,
            received_bps=410_000,
            is_fast=True,
        ),
        FlowStatus(
            protocol="udp",
            source="2001:db8:10::9",
            source_port=5060,
            destination="2001:db8:9::7",
            port=5060,
            class_name="voice",
            rule="match 2, application sip",
            site=None,
            carriers=(),
            sent_bps=None,
            received_bps=None,
            is_fast=False,
        ),
    ),
    count=3,
    is_complete=False,
)


class ScriptedSource:
    """A `StatusSource`. Tests set its attributes to change what it tells."""

    def __init__(self) -> None:
        self.feed = Feed()
        self.now_status = STATUS
        self.moves = (FIRST, MOVE)
        self.queries: list[HistoryQuery] = []
        self.asked_flows: list[Flow] = []
        self.flow_queries: list[FlowQuery] = []
        self.candidates: list[Intent] = []
        self.refusal: ConfigError | None = None

    async def status(self) -> Status:
        return self.now_status

    def health(self) -> Health:
        return Health(self.now_status.stage, self.now_status.uptime_s)

    def rows(self, part: Part) -> Iterable[Row]:
        return iter(getattr(self.now_status, part))

    def look_up(self, class_name: ClassName | None, site: SiteName | None) -> None:
        for name, known in ((class_name, ("voice", "bulk", "default")), (site, ("hq", "dc"))):
            if name not in (None, *known):
                msg = f"There is no {name!r}: the configuration has {', '.join(known)}."
                raise UnknownName(msg)

    def why(self, class_name: ClassName, site: SiteName) -> Why:
        if (class_name, site) != (WHY.class_name, WHY.site):
            msg = f"There is no class {class_name!r} toward a site {site!r}."
            raise UnknownName(msg)
        return WHY

    async def classify(self, flow: Flow) -> Classified:
        self.asked_flows.append(flow)
        if flow.lan not in (None, CLASSIFIED.lan):
            msg = f"There is no LAN {flow.lan!r}."
            raise UnknownName(msg)
        return CLASSIFIED

    async def flows(self, query: FlowQuery) -> Flows:
        self.flow_queries.append(query)
        return Flows(FLOWS.flows[: query.limit], FLOWS.count, FLOWS.is_complete)

    async def history(self, query: HistoryQuery) -> History:
        self.queries.append(query)
        return History(self.moves[-query.limit :], query.limit >= len(self.moves))

    async def plan_text(self, *, dry_run: bool, candidate: Intent | None) -> tuple[str, ...]:
        if candidate is not None:
            self.candidates.append(candidate)
        return PLAN[1:] if dry_run else PLAN

    def subscribe(self) -> Subscription:
        return self.feed.subscribe()

    async def reload(self) -> Reloaded:
        if self.refusal is not None:
            raise self.refusal
        return Reloaded("0badc0ffee11", is_changed=True)

    async def metrics(self) -> AsyncIterator[bytes]:
        return render_metrics(self.now_status)
