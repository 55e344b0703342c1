"""Through which site classes get to the internet, and by what they get there."""

from dataclasses import replace

from appliance.config.intent import Intent, Internet, Mode
from appliance.contract.ids import INTERNET, SiteName, Slot
from appliance.core.actions import EndFlows, MoveClass, UseGateway
from appliance.core.events import IntentChanged, SteeringAdopted, UplinkChanged
from appliance.core.gateways import EARLY_S
from appliance.core.state import State, steering
from appliance.core.steering import Assignment, Carrier, Steering
from appliance.core.why import explain
from tests.unit.core.examples import (
    DEFAULT,
    DEFAULT_POLICY,
    HQ,
    SHOP,
    VOICE,
    VOICE_POLICY,
    facts,
    intent,
    path,
    peer,
    policy,
)
from tests.unit.core.world import World

THROUGH = policy(DEFAULT_POLICY, internet=Internet.GATEWAY)


def branch(*gateways: str, **more) -> Intent:
    """The default class goes through a gateway; voice goes out by itself."""
    made = intent(
        peers=[peer("hq", 3), peer("shop", 4)],
        **{"default": THROUGH, "voice": VOICE_POLICY, **more},
    )
    return replace(made, gateways=tuple(map(SiteName, gateways)))


def over(state: State, class_name=DEFAULT) -> list[str]:
    held = state.internet.site.classes[class_name]
    return [str(c.path) for c in held.assignment.carriers]


def kill(world: World, name: str) -> None:
    for (site, _), line in world.far.items():
        if site == name:
            line.cut()


def heal(world: World, name: str) -> None:
    for (site, _), line in world.far.items():
        if site == name:
            line.heal()


def used(world: World) -> list[tuple[str | None, str | None]]:
    return [
        (a.before, a.after)
        for _, _, actions in world.log
        for a in actions
        if isinstance(a, UseGateway)
    ]


def test_the_first_gateway_carries_by_what_the_class_goes_there():
    world = World(branch("hq", "shop"))
    world.run(5)
    assert steering(world.state).gateway == HQ
    assert over(world.state) == ["hq/1-1"]
    assert over(world.state, VOICE) == ["internet/1-0"]
    world.far[HQ, Slot(1)].cut()
    world.run(1)
    assert over(world.state) == ["hq/1-2"], "it follows the class's own move"
    assert explain(world.state, DEFAULT, INTERNET).reason.startswith(
        "default to internet goes through hq: default to hq leaves fibre to cable (1-1)"
    )
    candidates = explain(world.state, DEFAULT, INTERNET).candidates
    assert {str(c.path) for c in candidates} == {f"hq/{x}-{y}" for x in (1, 2) for y in (1, 2)}


def test_share_is_that_toward_the_gateway():
    shared = policy(THROUGH, mode=Mode.SHARE, tiers=(("fibre", "dsl"),))
    world = World(branch("hq", default=shared))
    world.run(5)
    assert over(world.state) == ["hq/1-1", "hq/1-2", "hq/2-1", "hq/2-2"]


def test_another_gateway_takes_over_and_stays():
    world = World(branch("hq", "shop"))
    world.run(2 * EARLY_S)
    kill(world, "hq")
    start = world.now
    world.run(1)
    assert steering(world.state).gateway == SHOP
    assert over(world.state) == ["shop/1-1"]
    moved = [
        (at, a)
        for at, _, actions in world.log
        for a in actions
        if isinstance(a, UseGateway) and at > start
    ]
    assert len(moved) == 1
    assert moved[0][0] - start < 0.5
    assert moved[0][1].reason == "the internet is reached through shop: no path to hq works"
    heal(world, "hq")
    world.run(300)
    assert steering(world.state).gateway == SHOP, "connections are known there alone"
    kill(world, "shop")
    world.run(2)
    assert steering(world.state).gateway == HQ
    assert not [a for _, _, acts in world.log for a in acts if isinstance(a, EndFlows)]


def test_with_no_gateway_left_it_stays_with_the_last_and_goes_on_when_that_comes_back():
    world = World(branch("hq"))
    world.run(20)
    kill(world, "hq")
    world.run(5)
    assert steering(world.state).gateway == HQ
    assert over(world.state)[0].startswith("hq/"), "best effort stays"
    heal(world, "hq")
    world.run(100)
    assert over(world.state) == ["hq/1-1"]
    assert used(world) == [(None, "hq")]


def test_the_preferred_one_that_comes_up_second_is_taken_at_the_start_only():
    world = World(branch("hq", "shop"))
    kill(world, "hq")
    world.run(3)
    assert steering(world.state).gateway == SHOP
    heal(world, "hq")
    world.run(5)
    assert steering(world.state).gateway == HQ
    assert used(world) == [(None, "shop"), ("shop", "hq")]


def test_nothing_is_reached_at_the_start_and_nothing_leaks():
    world = World(branch("hq"))
    kill(world, "hq")
    world.run(5)
    assert over(world.state) == []
    assert steering(world.state).assignments[DEFAULT, INTERNET] == Assignment()


def test_a_restart_keeps_the_backup():
    shop, out = Carrier(path("shop", 1, 1)), Carrier(path("internet", 1, 0))
    adopted = Steering(
        {
            (DEFAULT, SHOP): Assignment((shop,)),
            (DEFAULT, HQ): Assignment((Carrier(path("hq", 1, 1)),)),
            (VOICE, SHOP): Assignment((shop,)),
            (VOICE, HQ): Assignment((Carrier(path("hq", 1, 1)),)),
            (DEFAULT, INTERNET): Assignment((shop,)),
            (VOICE, INTERNET): Assignment((out,)),
        },
        gateway=SHOP,
    )
    world = World(branch("hq", "shop"), adopt=adopted)
    world.run(60)
    assert steering(world.state).gateway == SHOP
    assert [a for _, _, acts in world.log for a in acts if isinstance(a, MoveClass)] == []
    assert used(world) == []


def test_a_gateway_that_the_configuration_has_no_more_is_left():
    world = World(branch("shop", "hq"))
    world.run(20)
    world.tell(IntentChanged(branch("hq")))
    world.run(1)
    assert steering(world.state).gateway == HQ
    assert over(world.state) == ["hq/1-1"]
    without = replace(branch(), peers=(peer("shop", 4),), policies=(VOICE_POLICY, DEFAULT_POLICY))
    world.tell(IntentChanged(without))
    world.run(1)
    assert steering(world.state).gateway is None
    assert over(world.state) == ["internet/1-0"]


def test_from_an_uplink_to_a_gateway_the_flows_of_the_uplink_end():
    world = World(branch("hq", default=DEFAULT_POLICY))
    world.run(5)
    actions = world.tell(IntentChanged(branch("hq")))
    world.run(0.1)
    assert [a.uplink for a in actions if isinstance(a, EndFlows)] == [1, 2]
    assert over(world.state) == ["hq/1-1"]


def test_a_local_uplink_that_dies_moves_what_goes_through_a_gateway_too():
    world = World(branch("hq"))
    world.run(5)
    world.tell(UplinkChanged(facts(1, carrier=False)))
    assert over(world.state) == ["hq/2-1"]


def test_what_was_found_is_an_event():
    assert SteeringAdopted().gateway is None
