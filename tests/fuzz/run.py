"""Fuzz one target, or all in turn, for as long as you like.

python -m tests.fuzz.run [TARGET] [--seconds N] [--seed S]
"""

import argparse
import sys
from time import monotonic

from tests.fuzz.harness import FuzzFailure, Target, mutations, try_one
from tests.fuzz.targets import TARGETS


def fuzz(target: Target, seconds: float, seed: int) -> bool:
    """Run until the time is up (True) or a fault is found (False), and say how it went."""
    begin = monotonic()
    slowest, count = 0.0, 0
    for octets in mutations(target, seed):
        before = monotonic()
        if before - begin >= seconds:
            break
        try:
            try_one(target, octets)
        except FuzzFailure as failure:
            print(
                f"{failure}\n  {failure.__cause__!r}\n  kept in {failure.save()}", file=sys.stderr
            )
            return False
        slowest = max(slowest, monotonic() - before)
        count += 1
    print(
        f"{target.name}: {count} inputs, slowest {slowest * 1000:.1f} ms, seed {seed}", flush=True
    )
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", nargs="?", choices=sorted(TARGETS), help="default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chosen = [TARGETS[options.target]] if options.target else list(TARGETS.values())
    passed = [fuzz(target, options.seconds, options.seed) for target in chosen]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
