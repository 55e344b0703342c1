"""Whole plans come into force one after the other, and none for another."""

from collections.abc import Callable, Collection
from copy import copy
from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from appliance.config.intent import Address
from appliance.core.steering import Steering
from appliance.kernel.fake import FakeKernel
from appliance.plan import diff as module
from appliance.plan.compile import compile_plan
from appliance.plan.plan import (
    Add,
    Device,
    DeviceAddress,
    Key,
    Kind,
    Nexthop,
    Observed,
    Plan,
    Sysctl,
    WireguardPeer,
)
from appliance.supervisor.reconciler import NotInForceError, Reconciler, diff_in_turns
from appliance.turns import TURN
from tests.unit.plan import examples as ex
from tests.unit.supervisor.counted import Turns

FORWARDING = Key(Kind.FORWARDING, ("net/ipv4/ip_forward",))
ADDRESS = Key(Kind.ADDRESS, ("eth0", "192.0.2.2/24"))
ITEM = DeviceAddress(ip_interface("192.0.2.2/24"))


class Watched(FakeKernel):
    """Counts how often it is looked at; the first time, something happens meanwhile."""

    def __init__(self) -> None:
        super().__init__(devices=("lo", "eth0"))
        self.looks = 0
        self.meanwhile: Callable[[], None] | None = None

    async def observe(self, wanted: Collection[Key]) -> Observed:
        self.looks += 1
        if self.looks == 1 and self.meanwhile is not None:
            self.meanwhile()
        return await super().observe(wanted)


async def _nothing() -> bool:
    return False


async def test_a_plan_that_is_not_wanted_any_more_is_not_the_one_in_force() -> None:
    kernel, steering = Watched(), Steering()
    reconciler = Reconciler(kernel, dict, lambda: steering, _nothing)
    kernel.meanwhile = reconciler.want_another
    assert await reconciler.reconcile() == 0
    assert kernel.looks == 2
    assert reconciler.is_in_force


async def test_a_move_while_it_is_looked_whether_the_plan_is_in_force_is_in_no_kernel_yet() -> None:
    kernel, steerings = Watched(), [Steering()]
    plans: list[Plan] = [{}, {ADDRESS: ITEM}]  # before the move, and with it
    kernel.meanwhile = lambda: steerings.append(Steering())
    reconciler = Reconciler(
        kernel, lambda: plans[len(steerings) - 1], lambda: steerings[-1], _nothing
    )
    assert await reconciler.reconcile() == 1
    assert ADDRESS in kernel.owned

    # Once it is in force, a move reaches the kernel by itself.
    kernel.looks = 0
    assert await reconciler.reconcile() == 0
    assert (kernel.looks, len(steerings)) == (1, 3)


async def test_a_hub_is_compared_a_slice_between_two_turns_of_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = ex.gateway(100)
    plan = compile_plan(hub, ex.attached(hub), ex.first_paths(hub), ex.KEY_A)
    removed = Key(Kind.PEER, ("bl-1-1", hub.peers[7].public_key))
    observed = {key: copy(item) for key, item in plan.items() if key != removed}
    counted = Turns(monkeypatch, (module, "is_met"))
    assert await counted.run(diff_in_turns(plan, observed, {})) == (Add(removed, plan[removed]),)
    assert counted.done["is_met"] == len(observed) > 10 * TURN
    assert counted.most["is_met"] <= TURN


async def test_the_plan_is_made_anew_as_soon_as_addresses_made_it_another() -> None:
    kernel, steering = Watched(), Steering()
    plans: list[Plan] = [
        {ADDRESS: ITEM, FORWARDING: Sysctl("1")},
        {ADDRESS: ITEM, FORWARDING: Sysctl("2")},
    ]
    addressed = []

    async def is_another() -> bool:
        addressed.append(dict(kernel.owned))
        return len(addressed) == 1

    def compile_now() -> Plan:
        return plans[min(len(addressed), 1)]

    reconciler = Reconciler(kernel, compile_now, lambda: steering, is_another)
    await reconciler.reconcile()
    assert len(addressed) == 1
    assert FORWARDING not in addressed[0]  # what comes later in the first plan was not applied
    assert reconciler.ops == {"address": 1, "forwarding": 1}


async def test_what_moves_made_stale_is_no_failed_attempt() -> None:
    kernel, moves = Watched(), 20
    steerings = [Steering() for _ in range(moves)]

    def steering_now() -> Steering:
        return steerings.pop() if len(steerings) > 1 else steerings[0]

    plan = {ADDRESS: ITEM, FORWARDING: Sysctl("1")}
    reconciler = Reconciler(kernel, lambda: plan, steering_now, _nothing)
    await reconciler.reconcile()
    assert reconciler.is_in_force
    assert kernel.looks > 6


PEER = Key(Kind.PEER, ("bl-1-1", ex.KEY_HQ))
HERE, THERE, ROAMED = ((ip_address(f"198.51.100.{n}"), 51837) for n in (1, 2, 77))


def _calling(endpoint: tuple[Address, int] | None) -> Plan:
    return {
        Key(Kind.DEVICE, ("bl-1-1",)): Device("wireguard", 1420),
        PEER: WireguardPeer(endpoint, frozenset(), 0),
    }


class Roaming:
    """A box with one peer, which is heard from elsewhere between any two looks at the kernel."""

    def __init__(self) -> None:
        self.kernel = Watched()
        self.plan = _calling(HERE)
        self.restart()

    def restart(self) -> None:
        steering = Steering()
        self.reconciler = Reconciler(self.kernel, lambda: self.plan, lambda: steering, _nothing)

    async def reconcile(self) -> list[tuple[Address, int] | None]:
        """The endpoints that were set."""
        self.kernel.applied.clear()
        await self.reconciler.reconcile()
        ops = [op for op in self.kernel.applied if isinstance(op.item, WireguardPeer)]
        return [op.item.endpoint for op in ops if isinstance(op.item, WireguardPeer)]


async def test_a_peer_that_is_heard_from_elsewhere_is_left_there() -> None:
    box = Roaming()
    assert await box.reconcile() == [HERE]
    box.kernel.roam(PEER, ROAMED)
    assert await box.reconcile() == []
    box.restart()
    assert await box.reconcile() == []
    assert box.reconciler.is_in_force
    box.kernel.silence(PEER)
    assert await box.reconcile() == [HERE]


@pytest.mark.parametrize("before", [HERE, None])
async def test_another_endpoint_is_set_once_although_the_peer_is_heard(
    before: tuple[Address, int] | None,
) -> None:
    box = Roaming()
    box.plan = _calling(before)
    await box.reconcile()
    box.kernel.roam(PEER, ROAMED)
    box.restart()
    await box.reconcile()  # the kernel is as planned: that is what was asked for
    box.plan = _calling(THERE)
    box.kernel.meanwhile = lambda: box.kernel.roam(PEER, ROAMED)
    box.kernel.looks = -1  # the peer is heard before it is looked whether all is as planned
    assert await box.reconcile() == [THERE]
    assert box.kernel.owned[PEER] == replace(box.plan[PEER], endpoint=ROAMED)
    assert await box.reconcile() == []


async def test_an_endpoint_that_may_have_been_set_before_a_failure_is_set_back() -> None:
    box = Roaming()
    await box.reconcile()
    box.kernel.roam(PEER, HERE)
    box.plan = {**_calling(THERE), Key(Kind.NEXTHOP, (9,)): Nexthop(4, "nowhere0")}
    with pytest.raises(NotInForceError):
        await box.reconcile()
    assert box.kernel.owned[PEER] == _calling(THERE)[PEER]
    box.plan = _calling(HERE)
    assert await box.reconcile() == [HERE]
