"""The real kernel keeps the contract that the kernel in memory keeps, and is fast enough.

One box, [site], in a network namespace of its own; nobody else is needed.
"""

import json

from lab.topology import Lab

SITES = 1000


def story_the_contract_holds_on_the_real_kernel(lab: Lab) -> None:
    site = lab.site("a")
    *told, results = site.run(["python3", "-m", "tests.contract.on_linux"]).splitlines()
    for line in told:
        lab.say(line[:1500])
    for name, error, seconds in json.loads(results):
        lab.check(error is None, f"{name.replace('_', ' ')} ({seconds:.2f} s) {error or ''}")


def story_a_hub_is_built_and_moved_in_time(lab: Lab) -> None:
    """1,000 sites on four planes, five classes; WireGuard devices without far ends."""
    site = lab.site("hub")
    command = ["python3", "-m", "tests.contract.speed", str(SITES)]
    *told, results = site.run(command, timeout_s=900).splitlines()
    for line in told:
        lab.say(line)
    took = json.loads(results)
    for name in ("cold_apply", "observe_again", "all_routes", "detour", "move", "read_counter"):
        lab.record(f"rim_{name}", took[name], "s", sites=SITES)
    lab.check(took["cold_apply"] <= 15, "a hub is there from nothing within 15 s")
    lab.check(took["all_routes"] <= 0.2, f"{took['routes_moved']} routes move within 200 ms")
    lab.check(took["detour"] <= 0.02, "a detour moves all of them within 20 ms")
    lab.check(took["move"] <= 0.001, "a move of few routes takes less than 1 ms")
