"""Rates reach the kernel by one message each, and what somebody else set is put back."""

from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest

from appliance.config.intent import Intent, Shaping
from appliance.contract.ids import PathId, Slot
from appliance.core.events import Event, LineFilled
from appliance.kernel.fake import FakeKernel
from appliance.kernel.kernel import QueueCounters, is_rate
from appliance.plan.compile import compile_plan
from appliance.plan.diff import diff
from appliance.plan.plan import Change, Key, Kind, Observed, Plan, Shaper
from appliance.plan.shape import Rates, rates_from, shapers
from appliance.plan.underlay import attachments
from appliance.probing.paths import Traced
from appliance.supervisor.rates import CHOOSE_S, FOLLOWED, LineRates
from appliance.supervisor.reconciler import Reconciler
from appliance.supervisor.warnings import Warnings
from tests.unit.plan import examples as ex

LEARNED = Shaping(40_000_000, 95_000_000, up_least_bps=2_000_000)
UP = Key(Kind.SHAPER, ("bl-up1",))
START = 8_944_272  # the geometric mean of the bounds


def intent(shaping: Shaping = LEARNED) -> Intent:
    fibre = replace(ex.BRANCH.uplinks[0], shaping=shaping)
    return replace(ex.BRANCH, uplinks=(fibre, *ex.BRANCH.uplinks[1:]))


class Prober:
    """Answers at once, from a line whose queue is `queue_s`."""

    def __init__(self) -> None:
        self.traced: frozenset[PathId] = frozenset()
        self.now = 0.0
        self.queue_s = 0.0

    def trace(self, paths: frozenset[PathId]) -> None:
        self.traced = paths

    def take_traces(self) -> dict[PathId, tuple[Traced, ...]]:
        queue_us = round(self.queue_s * 1e6)
        found = tuple(
            [Traced(self.now - a, 20_000 + queue_us, 10_000 + queue_us) for a in (0.1, 0.05)]
        )
        return dict.fromkeys(self.traced, found)

    def pace(self, _path: PathId) -> float:
        return 0.05


class Box:
    """A kernel that holds the plan, and what sets rates in it."""

    def __init__(
        self,
        kernel: FakeKernel | None = None,
        wanted: Intent | None = None,
        adopted: Rates | None = None,
    ) -> None:
        self.kernel = kernel or FakeKernel(devices=("lo", "eth0", "wwan0", "lan0"))
        self.prober = Prober()
        self.intent = wanted or intent()
        self.drifts = 0
        self.events: list[Event] = []
        self.warnings = Warnings()
        self.now = 0.0
        self.passed = self.packets = 0
        self.rates = LineRates(
            self.kernel,
            self.prober,
            shapers=self._shapers,
            is_in_force=lambda: True,
            on_drift=self._drifted,
            emit=self.events.append,
            warnings=self.warnings,
        )
        if adopted is not None:
            self.rates.adopt(adopted)
        self.rates.configure(self.intent)

    def _shapers(self, rates: Rates) -> Mapping[Key, Shaper]:
        return dict(shapers(self.intent, attachments(self.intent, ex.BRANCH_FACTS), rates))

    def _drifted(self) -> None:
        self.drifts += 1

    @property
    def warned(self) -> dict[str, str]:
        return {f"{each.code} {each.subject}": each.text for each in self.warnings.standing}

    def plan(self) -> Plan:
        return compile_plan(
            self.intent,
            ex.BRANCH_FACTS,
            ex.BRANCH_STEERING,
            ex.KEY_A,
            rates=self.rates.rates,
        )

    async def converge(self) -> int:
        plan = self.plan()
        ops = diff(plan, await self.kernel.observe(plan.keys()))
        await self.kernel.apply(ops)
        return len(ops)

    def run(self, seconds: float, *, mbit: float, queue_s: float = 0.0) -> None:
        """Something sends at this rate, as the line counts it, for a while."""
        self.prober.queue_s = queue_s
        for _ in range(round(seconds / 0.1)):
            self.now = self.prober.now = self.now + 0.1
            packets = round(mbit * 1e6 / 8 * 0.1 / 1500)
            self.packets += packets
            self.passed += packets * (1500 - 78)
            for device in ("bl-up1", "bl-down1"):
                self.kernel.queues[device] = QueueCounters(self.passed, self.packets, 0, 0)
            self.rates.tick(self.now)

    @property
    def rate_bps(self) -> int:
        item = self.kernel.owned[UP]
        assert isinstance(item, Shaper)
        return item.rate_bps


@pytest.fixture
async def box() -> Box:
    made = Box()
    await made.converge()
    return made


async def test_it_begins_between_its_bounds_and_grows_while_it_is_used(box: Box) -> None:
    assert box.rate_bps == START
    done = len(box.kernel.applied)
    box.run(1, mbit=1)
    assert len(box.kernel.applied) == done  # nobody wants more
    box.run(1, mbit=20)
    assert box.rate_bps > 1.5 * START
    ops = box.kernel.applied[done:]
    assert {op.key for op in ops} == {UP}
    assert all(isinstance(op, Change) for op in ops)
    assert box.rates.ops["rate"] == len(ops)
    assert await box.converge() == 0  # the plan says what was set


async def test_it_sinks_at_once_when_a_queue_grows(box: Box) -> None:
    box.run(3, mbit=20)
    before = box.rate_bps
    box.run(0.3, mbit=8, queue_s=0.1)
    assert box.rate_bps < 0.75 * before


async def test_a_line_that_is_full_of_our_own_is_told(box: Box) -> None:
    box.run(1, mbit=20)
    box.run(0.3, mbit=20, queue_s=0.1)
    assert box.events == [LineFilled(Slot(1), is_full=True)]
    box.run(0.5, mbit=20)
    box.run(0.2, mbit=20, queue_s=0.01)  # found by growing: not worth telling
    box.run(0.5, mbit=20)
    box.run(5, mbit=0.3)
    box.run(1, mbit=2, queue_s=0.1)  # most of it is somebody else's
    assert box.events == [LineFilled(Slot(1), is_full=full) for full in (True, False)]


async def test_who_is_about_to_judge_looks_first_but_not_again_and_again(box: Box) -> None:
    box.run(1, mbit=20)
    box.prober.queue_s = 0.2
    box.rates.look(box.now + 0.01)
    assert not box.events
    box.prober.now += 0.05
    box.rates.look(box.now + 0.05)
    assert box.events == [LineFilled(Slot(1), is_full=True)]


async def test_a_rate_that_somebody_set_is_put_back_to_what_was_learned(box: Box) -> None:
    box.run(1, mbit=20)
    learned = box.rate_bps
    shaper = box.kernel.owned[UP]
    assert isinstance(shaper, Shaper)
    box.kernel.owned[UP] = replace(shaper, rate_bps=1_000_000)
    assert await box.converge() == 1
    assert box.rate_bps == learned


async def test_who_is_started_again_adopts_what_was_learned(box: Box) -> None:
    box.run(1, mbit=20)
    observed = await box.kernel.observe(())
    again = Box(box.kernel, adopted=rates_from(box.intent, observed))
    assert again.rates.rates[Slot(1), "up"] == box.rate_bps != START
    assert await again.converge() == 0


async def test_other_bounds_keep_what_was_learned_as_far_as_it_goes(box: Box) -> None:
    box.run(1, mbit=20)
    learned = box.rate_bps
    for most_bps, rate_bps in ((30_000_000, learned), (9_000_000, 9_000_000)):
        box.intent = intent(replace(LEARNED, up_bps=most_bps))
        box.rates.configure(box.intent)
        assert box.rates.rates[Slot(1), "up"] // 8 * 8 == rate_bps
    box.intent = intent(Shaping(5_000_000, 5_000_000))
    box.rates.configure(box.intent)
    assert box.rates.rates == {}


async def test_a_shaper_that_is_gone_is_told(box: Box) -> None:
    box.kernel.remove(UP)
    box.run(1, mbit=20)
    assert box.drifts
    assert await box.converge() == 1
    drifts = box.drifts
    box.run(1, mbit=20)
    assert box.drifts == drifts


async def test_what_a_plan_of_before_would_set_is_outdated(box: Box) -> None:
    plan = box.plan()
    box.run(1, mbit=20)
    (stale,) = diff(plan, await box.kernel.observe(plan.keys()))
    assert box.rates.is_outdated(stale)
    shaper = box.kernel.owned[UP]
    assert isinstance(shaper, Shaper)
    box.kernel.owned[UP] = replace(shaper, rate_bps=1_000_000)
    plan = box.plan()
    (repair,) = diff(plan, await box.kernel.observe(plan.keys()))
    assert not box.rates.is_outdated(repair)


async def test_while_rates_change_no_older_one_is_put_back(box: Box) -> None:
    """They change before the kernel is looked at, after that, and while something is applied."""
    observe = box.kernel.observe

    async def observe_meanwhile(wanted: Collection[Key]) -> Observed:
        box.run(0.3, mbit=20)
        seen = await observe(wanted)
        box.run(0.3, mbit=20)
        return seen

    async def nothing() -> bool:
        return False

    box.kernel.observe = observe_meanwhile  # type: ignore[method-assign]
    steering = ex.BRANCH_STEERING
    reconciler = Reconciler(
        box.kernel, box.plan, lambda: steering, nothing, is_outdated=box.rates.is_outdated
    )
    box.run(0.3, mbit=20)
    await reconciler.reconcile()
    assert reconciler.is_in_force
    rates = [op.item.rate_bps for op in box.kernel.applied if is_rate(op) and op.key == UP]
    assert len(rates) > 5
    assert rates == sorted(rates)


async def test_a_shaper_made_anew_counts_from_nothing(box: Box) -> None:
    box.run(1, mbit=10)
    box.passed = box.packets = 0
    box.run(1, mbit=10)
    assert box.rates.lines[Slot(1), "up"].used_bps == pytest.approx(10e6, rel=0.1)


async def test_a_rate_that_the_line_does_not_carry_is_warned_of() -> None:
    box = Box(wanted=intent(Shaping(40_000_000, 40_000_000)))
    await box.converge()
    done = len(box.kernel.applied)
    box.run(2, mbit=38)
    box.run(6, mbit=8, queue_s=0.2)
    (text,) = {t for code, t in box.warned.items() if code == "line-slower fibre up"}
    assert text.startswith("fibre carries about 8")
    assert len(box.kernel.applied) == done  # what is given is not learned
    box.run(7, mbit=39)
    assert not box.warned
    box.run(6, mbit=8, queue_s=0.2)
    assert box.warned
    box.rates.configure(box.intent)
    assert not box.warned


def test_paths_that_are_followed_in_turn_hide_no_queue() -> None:
    hub = ex.gateway(20)
    given = Shaping(40_000_000, 40_000_000)
    box = Box(wanted=replace(hub, uplinks=tuple(replace(u, shaping=given) for u in hub.uplinks)))
    box.run(2, mbit=38)
    box.run(4 * CHOOSE_S, mbit=8, queue_s=0.2)
    assert "line-slower fibre up" in box.warned
    filled = [e.is_full for e in box.events if isinstance(e, LineFilled) and e.slot == 1]
    assert filled == [True]


@pytest.mark.parametrize("sites", [20, 64, 128])
def test_of_many_paths_some_are_followed_and_each_in_time(sites: int) -> None:
    hub = ex.gateway(sites)
    hub = replace(hub, uplinks=tuple(replace(u, shaping=LEARNED) for u in hub.uplinks))
    box = Box(wanted=hub)
    seen = set()
    for turn in range(sites):
        box.rates.tick(5.0 * turn)
        traced = box.prober.traced
        assert len(traced) == FOLLOWED * len(hub.uplinks)
        seen |= {path.site for path in traced}
    assert seen == {peer.name for peer in hub.peers}
