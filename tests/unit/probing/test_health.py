"""The pace of the rounds and what is told of them, in virtual time with answers from a script."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_interface

from appliance.config.intent import Method, Target, TargetKind, Uplink
from appliance.contract.ids import Label, Slot, UplinkName
from appliance.core.events import UplinkFacts, UplinkProbed
from appliance.probing.health import INTERVAL_S, METERED_INTERVAL_S, UplinkHealth
from appliance.probing.quorum import FALL, RISE, Outcome
from tests.unit import virtual_time

TARGETS = tuple(Target(TargetKind.ICMP, ip_address(f"192.0.2.{n}")) for n in (1, 2, 3))
UPLINK = Uplink(
    name=UplinkName("fibre"),
    slot=Slot(2),
    label=Label("fibre"),
    device="eth0",
    method=Method.DHCP,
    targets=TARGETS,
    quorum=1,
)
ATTACHED = UplinkFacts(Slot(2), True, True, (ip_interface("198.51.100.2/24"),))
DETACHED = replace(ATTACHED, has_carrier=False)


class World:
    """Answers while `is_alive`, and keeps what was asked and told, with the virtual time."""

    def __init__(self, uplink: Uplink = UPLINK, *, hangs_s: float = 0.0) -> None:
        self.is_alive = True
        self.hangs_s = hangs_s
        self.asked: list[tuple[float, str, int]] = []
        self.told: list[tuple[float, UplinkProbed]] = []
        self.health = UplinkHealth(uplink, self.tell, lambda: 0.5, self.ask)

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def ask(
        self, targets: Sequence[Target], device: str, mark: int, enough: int | None
    ) -> list[Outcome]:
        """One target of more than are enough may hang; all do that are behind a dead line."""
        self.asked.append((self.now, device, mark))
        await asyncio.sleep(0 if enough is not None and self.is_alive else self.hangs_s)
        return [Outcome(t, self.is_alive, "no answer within 2 s") for t in targets]

    def tell(self, event: UplinkProbed) -> None:
        self.told.append((self.now, event))

    def play(self, *scenes: tuple[float, object]) -> None:
        """Scenes are (seconds to let pass, facts to give, a value of `is_alive` or "doubt")."""

        async def story() -> None:
            running = asyncio.ensure_future(self.health.run())
            for seconds, scene in scenes:
                if isinstance(scene, UplinkFacts):
                    self.health.facts_changed(scene)
                elif scene == "doubt":
                    self.health.ask_now()
                else:
                    self.is_alive = bool(scene)
                await asyncio.sleep(seconds)
            running.cancel()

        virtual_time.run(story())


def test_an_attached_uplink_is_asked_at_once_through_its_device_and_mark() -> None:
    world = World()
    world.play((0.1, ATTACHED))
    assert world.asked == [(0.0, "eth0", 0x02000000)]
    assert [e for _, e in world.told] == [
        UplinkProbed(Slot(2), 3, 3, is_healthy=True, evidence="3 of 3 targets answered")
    ]


def test_a_healthy_uplink_is_asked_at_the_pace_of_its_kind() -> None:
    for uplink, interval in (
        (UPLINK, INTERVAL_S),
        (replace(UPLINK, metered=True), METERED_INTERVAL_S),
    ):
        world = World(uplink)
        world.play((interval * 3.5, ATTACHED))
        assert [at for at, _, _ in world.asked] == [interval * n for n in range(4)]
        assert len(world.told) == 4


def test_the_verdict_stays_while_the_same_is_asked() -> None:
    health = World().health
    assert health.use(replace(UPLINK, name=UplinkName("glass"), metered=True, weight=2))
    for other in ({"device": "eth9"}, {"targets": TARGETS[:2]}, {"quorum": 2}, {"slot": Slot(3)}):
        assert not health.use(replace(UPLINK, **other))  # type: ignore[arg-type]


def test_it_is_told_how_long_ago_was_asked() -> None:
    world = World(hangs_s=1.5)
    world.play((2, ATTACHED))
    assert [(at, event.took_s) for at, event in world.told] == [(1.5, 1.5)]


def test_jitter_spreads_the_interval_both_ways() -> None:
    for drawn, expected in ((0.0, INTERVAL_S * 0.9), (1.0, INTERVAL_S * 1.1)):
        world = World()
        world.health = UplinkHealth(UPLINK, world.tell, lambda drawn=drawn: drawn, world.ask)
        world.play((INTERVAL_S * 1.5, ATTACHED))
        assert [at for at, _, _ in world.asked] == [0.0, expected]


def test_a_dead_uplink_falls_within_a_bounded_time_and_rises_again() -> None:
    world = World(hangs_s=2.0)
    world.play((60, ATTACHED), (60, False), (60, True))
    changes = [
        (at, event.is_healthy)
        for (_, before), (at, event) in zip(world.told, world.told[1:], strict=False)
        if before.is_healthy != event.is_healthy
    ]
    assert [verdict for _, verdict in changes] == [False, True]
    fell, rose = changes[0][0] - 60, changes[1][0] - 120
    assert fell <= (INTERVAL_S + 2.0) + FALL * (1.0 + 2.0)
    assert rose <= (INTERVAL_S + 2.0) + RISE * (1.0 + 2.0)
    dead = [e for at, e in world.told if 62 < at < 120]
    assert dead[-1].evidence.startswith("0 of 3 targets answered; 192.0.2.1 (icmp) did not")
    back = next(e for at, e in world.told if at >= 120)
    assert back.evidence == (
        "3 of 3 targets answered; 1 of the 3 good rounds that change the verdict"
    )


def test_an_uplink_that_is_away_is_not_asked_and_forgets_its_verdict() -> None:
    world = World()
    world.play((20, ATTACHED), (1000, DETACHED))
    assert max(at for at, _, _ in world.asked) <= 20
    world = World()
    world.play((20, ATTACHED), (1, False), (30, DETACHED), (1, ATTACHED))
    # Back, and dead: the old verdict is not repeated, and three rounds have not passed yet.
    assert [at for at, _ in world.told if at > 51] == []


def test_a_change_of_address_asks_at_once_and_keeps_the_verdict() -> None:
    world = World()
    moved = replace(ATTACHED, addresses=(ip_interface("198.51.100.77/24"),))
    world.play((7, ATTACHED), (1, moved))
    assert [at for at, _, _ in world.asked] == [0.0, 5.0, 7.0]
    assert all(event.is_healthy for _, event in world.told)


def test_an_uplink_in_doubt_is_asked_at_once() -> None:
    world = World()
    world.play((7, ATTACHED), (1, "doubt"))
    assert [at for at, _, _ in world.asked] == [0.0, 5.0, 7.0]


def test_in_doubt_no_target_is_waited_for_that_hangs_and_not_in_the_round_under_way() -> None:
    world = World(replace(UPLINK, quorum=2), hangs_s=2.0)
    world.play((1, ATTACHED), (1, "doubt"))
    assert [at for at, _, _ in world.asked] == [0.0, 1.0]
    assert [(at, event.took_s) for at, event in world.told] == [(1.0, 0.0)]


def test_doubts_that_keep_coming_do_not_keep_a_dead_uplink_alive() -> None:
    world = World(hangs_s=2.0)
    world.play((4, ATTACHED), (0, False), *[(0.5, "doubt")] * 20)
    assert world.told[-1][1].is_healthy is False


def test_facts_that_keep_changing_do_not_keep_a_dead_uplink_alive() -> None:
    world = World()
    with_router = replace(ATTACHED, gateways=(ip_address("fe80::1"),))
    flapping = [(0.4, facts) for _ in range(10) for facts in (with_router, ATTACHED)]
    world.play((1, ATTACHED), (0, False), *flapping)
    assert world.told[-1][1].is_healthy is False


def test_without_targets_nobody_is_asked() -> None:
    world = World(replace(UPLINK, targets=()))
    virtual_time.run(world.health.run())
    assert (world.asked, world.told) == ([], [])
