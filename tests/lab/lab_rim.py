"""The real kernel keeps the contract that the kernel in memory keeps, and is fast enough.

One box, [site], in a network namespace of its own; nobody else is needed.
"""

import json

from lab.topology import Lab


def story_the_contract_holds_on_the_real_kernel(lab: Lab) -> None:
    site = lab.site("a")
    *told, results = site.run(["python3", "-m", "tests.contract.on_linux"]).splitlines()
    for line in told:
        lab.say(line[:1500])
    for name, error, seconds in json.loads(results):
        lab.check(error is None, f"{name.replace('_', ' ')} ({seconds:.2f} s) {error or ''}")
