"""Whole plans come into force one after the other, and none for another."""

from collections.abc import Callable, Collection
from copy import copy
from ipaddress import ip_interface

import pytest

from appliance.core.steering import Steering
from appliance.kernel.fake import FakeKernel
from appliance.plan import diff as module
from appliance.plan.compile import compile_plan
from appliance.plan.plan import Add, DeviceAddress, Key, Kind, Observed, Plan, Sysctl
from appliance.supervisor.reconciler import Reconciler, diff_in_turns
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
    assert await counted.run(diff_in_turns(plan, observed)) == (Add(removed, plan[removed]),)
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
