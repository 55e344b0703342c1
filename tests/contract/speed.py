"""How long the rim takes on this machine: moves, bulk moves, a hub from nothing.

`python3 -m tests.contract.speed SITES`: the last line is a JSON object of seconds and octets.
Meant for the lab, where a second is 1,000,000,000 instructions.
"""

import asyncio
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from appliance.config.addressing import mirrored
from appliance.config.intent import Policy, TrafficClass, planes
from appliance.contract.ids import ClassName, Plane, Slot
from appliance.core.steering import Assignment, Steering
from appliance.plan.adopt import steering_from
from appliance.plan.compile import compile_plan
from appliance.plan.counters import sent_counter
from appliance.plan.diff import diff
from appliance.plan.plan import Kind
from appliance.plan.steer import Steerer
from tests.contract.shell import RealWorld, clean, shell
from tests.unit.plan import examples as ex


class Watch:
    """Seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        start = time.monotonic()
        result = work()
        self.seconds[name] = time.monotonic() - start
        print(f"{name}: {self.seconds[name]:.4f} s", flush=True)
        return result


def hub(sites: int):
    """A gateway with five classes, as ex.gateway has three."""
    intent = ex.gateway(sites)
    names = [*(ClassName(n) for n in ("voice", "video", "apps", "bulk")), ex.DEFAULT]
    classes = tuple(TrafficClass(n, i, ()) for i, n in enumerate(names, 1))
    policies = tuple(Policy(n, ((ex.FIBRE,), (ex.LTE,))) for n in names)
    return replace(intent, classes=classes, policies=policies)


async def measure(sites: int) -> dict[str, float]:
    watch = Watch()
    clean()
    world = RealWorld()
    kernel = world.kernel
    intent = hub(sites)
    steering = ex.first_paths(intent)
    facts = ex.attached(intent)
    shell("ip link add eth1 type dummy; ip link set eth1 up")

    start = time.monotonic()
    plan = watch("compile", lambda: compile_plan(intent, facts, steering, world.public_key))
    seen = await kernel.observe(plan.keys())
    ops = watch("diff", lambda: diff(plan, seen))
    for kind in Kind:
        chosen = [op for op in ops if op.key.kind is kind]
        begun = time.monotonic()
        await kernel.apply(chosen)
        watch.seconds[f"apply_{kind.name.lower()}"] = time.monotonic() - begun
        print(f"apply {len(chosen)} {kind.name}: {time.monotonic() - begun:.3f} s", flush=True)
    begun = time.monotonic()
    seen = await kernel.observe(plan.keys())
    watch.seconds["observe"] = time.monotonic() - begun
    left = watch("verify", lambda: diff(plan, seen))
    assert left == (), left[:3]
    watch.seconds["cold_apply"] = time.monotonic() - start
    begun = time.monotonic()
    await kernel.observe(plan.keys())
    watch.seconds["observe_again"] = time.monotonic() - begun

    assert watch("adopt", lambda: steering_from(intent, seen)) == steering
    steerer = watch("steerer", lambda: Steerer(intent))
    two = Plane(Slot(2), Slot(1))
    one = Plane(Slot(1), Slot(1))
    site = intent.peers[0].name
    there = ex.carried(ex.path(site, 2, 1))
    before = steering.assignments[ex.DEFAULT, site]
    for _ in range(3):
        ops = watch("move_ops", partial(steerer.move, ex.DEFAULT, site, before, there))
        watch("move", partial(kernel.steer, ops))
        kernel.steer(steerer.move(ex.DEFAULT, site, there, before))
    for _ in range(2):
        ops = watch("detour_ops", partial(steerer.detour, {}, {one: two}))
        watch("detour", partial(kernel.steer, ops))
        kernel.steer(steerer.detour({one: two}, {}))
    moved = {
        where: Assignment(tuple(replace(c, path=c.path._replace(plane=two)) for c in a.carriers))
        for where, a in steering.assignments.items()
    }
    ops = watch("all_ops", lambda: steerer.ops(steering, Steering(moved)))
    watch.seconds["routes_moved"] = len(ops)
    watch("all_routes", lambda: kernel.steer(ops))
    name = sent_counter(one, intent.peers[-1].site_id)
    assert watch("read_counter", lambda: kernel.read_counters([name])) == (0,)
    watch.seconds["planes"] = len({mirrored(p) for p in planes(intent)})
    watch.seconds["rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    kernel.close()
    return watch.seconds


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(int(sys.argv[1])))))
