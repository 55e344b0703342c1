"""Run the contract, and what only a real kernel can show, in this network namespace.

`python3 -m tests.contract.on_linux [NAME...]`: the last line is a JSON list of [name, error or
null, seconds]. Meant for the lab: it makes and removes devices, routes and tables.
"""

import asyncio
import json
import sys
import time
import traceback

from tests.contract import bond_checks, duplicate_checks, kernel_contract, real_checks
from tests.contract.shell import RealWorld, clean


def run_checks(chosen: list[str]) -> list[list[object]]:
    modules = kernel_contract, real_checks, duplicate_checks, bond_checks
    checks = {name: check for module in modules for name, check in module.CHECKS.items()}
    results: list[list[object]] = []
    for name in chosen or checks:
        clean()
        world = RealWorld()
        error = None
        start = time.monotonic()
        try:
            asyncio.run(checks[name](world))
        except BaseException:  # noqa: BLE001 - each check is told apart
            error = traceback.format_exc()
        finally:
            world.kernel.close()
        results.append([name, error, time.monotonic() - start])
    return results


if __name__ == "__main__":
    print(json.dumps(run_checks(sys.argv[1:])))
