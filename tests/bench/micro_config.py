"""What reading a hub's configuration costs, by the step.

    python -m tests.bench.micro_config [--peers N]   milliseconds of CPU on this machine
    python -m tests.bench.micro_config --count       instructions, under valgrind (slow)

The second is what counts: on the 1-GIPS core of the lab an instruction is a nanosecond.
"""

import argparse
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from statistics import median
from time import process_time_ns

from appliance.config.checks import check
from appliance.config.load import compile_intent, parse_config
from appliance.config.validate import validate
from appliance.config.yaml import parse_yaml

ROUNDS = 7


def hub(peers: int) -> str:
    """A hub with two uplinks, and so many sites with two dual-stack uplinks and prefixes each."""
    lines = [
        "version: 1",
        "site: {name: hub, id: 1}",
        'fleet: {overlay: "fd12:3456:789a::/48"}',
        "uplinks:",
        "  - {name: north, device: eth0, address: 203.0.113.2/24, gateway: 203.0.113.1}",
        "  - {name: south, device: eth1, address: 192.0.2.2/24, gateway: 192.0.2.1}",
        "peers:",
    ]
    for site in range(2, peers + 2):
        key = b64encode(sha256(str(site).encode()).digest()).decode()
        high, low = divmod(site, 256)
        lines += [
            f"  - name: branch-{site}",
            f"    id: {site}",
            f"    public_key: {key}",
            "    uplinks:",
            f'      - {{label: fibre, endpoint: [198.18.{high}.{low}, "2001:db8:{site:x}::1"]}}',
            f'      - {{label: lte, endpoint: [198.19.{high}.{low}, "2001:db8:{site:x}::2"]}}',
            f'    prefixes: [10.{high}.{low}.0/24, "2001:db8:{site:x}:1::/64"]',
        ]
    return "\n".join(lines) + "\n"


def milliseconds(step: Callable[[], object]) -> float:
    spent = []
    for _ in range(ROUNDS):
        before = process_time_ns()
        step()
        spent.append(process_time_ns() - before)
    return median(spent) / 1e6


def instructions(peers: int) -> int:
    """Of a process that imports the reader and reads a hub with so many peers, or reads nothing."""
    tool = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    argv = [sys.executable, "-m", "tests.bench.micro_config", "--once", "--peers", str(peers)]
    done = subprocess.run([*tool, *argv], capture_output=True, text=True, check=True)
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if found is None:
        raise ValueError(done.stderr)
    return int(found[1].replace(",", ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", type=int, default=1000)
    parser.add_argument("--count", action="store_true", help="count instructions, under valgrind")
    parser.add_argument("--once", action="store_true", help="read one hub and print nothing")
    options = parser.parse_args()
    text = hub(options.peers)
    if options.once:
        parse_config(text, "hub.yaml")
        return
    if options.count:
        least, all_in_all = instructions(1), instructions(options.peers)
        print(f"import     {least / 1e6:8.0f} million instructions")
        print(f"{options.peers} peers {(all_in_all - least) / 1e6:8.0f} million instructions")
        return
    document = parse_yaml(text)
    assert isinstance(document.value, dict)
    tree = document.value
    config, parts, _ = validate(tree)
    assert config is not None
    print(f"yaml     {milliseconds(lambda: parse_yaml(text)):8.1f} ms  {len(text)} octets")
    print(f"validate {milliseconds(lambda: validate(tree)):8.1f} ms")
    print(f"check    {milliseconds(lambda: list(check(parts))):8.1f} ms")
    print(f"compile  {milliseconds(lambda: compile_intent(config)):8.1f} ms")
    print(f"all      {milliseconds(lambda: parse_config(text, 'hub.yaml')):8.1f} ms")


if __name__ == "__main__":
    main()
