"""What a probe costs: each hot function of the STAMP package, by the call.

    python -m tests.bench.micro_stamp            microseconds on this machine
    python -m tests.bench.micro_stamp --count    instructions, under valgrind (slow)

The second is what counts: on the 1-GIPS core of the lab an instruction is a nanosecond, on
whatever machine it was counted.
"""

import argparse
import re
import subprocess
import sys
from time import perf_counter_ns

from appliance.stamp.reflector import SessionReflector
from appliance.stamp.sender import SessionSender
from appliance.stamp.tlv import encode_direct_measurement

START_NS = 1_700_000_000_000_000_000
INTERVAL_NS = 20_000_000
DELAY_NS = 10_000_000  # one way
SOURCE = ("2001:db8::1", 40000, 0, 0)
ENDLESS = 1_000_000_000  # a rate that no benchmark reaches
KINDS = ("plain", "authenticated", "measured")  # the last: with a Direct Measurement TLV
CHAIN = ("probe", "reflect", "receive", "deadlines", "take_sample")
ROUNDS = 2_000  # of a count; a timing takes ten times as many


class Rig:
    """One path, taken apart into the steps that a probe goes through, for every probe in turn."""

    def __init__(self, kind: str) -> None:
        key = bytes(range(32)) if kind == "authenticated" else None
        self.tlvs = encode_direct_measurement(7) if kind == "measured" else b""
        self.sender = SessionSender(0x11, key=key, capacity=1 << 20)
        self.reflector = SessionReflector(
            key=key,
            session_rate=ENDLESS,
            session_burst=ENDLESS,
            total_rate=ENDLESS,
            total_burst=ENDLESS,
            counters_of=lambda _source, _ssid: (1, 2),
        )
        self.packet = b""

    def probe(self, now_ns: int) -> None:
        self.packet = self.sender.probe(now_ns, tlvs=self.tlvs)

    def reflect(self, now_ns: int) -> None:
        arrived_ns = now_ns + DELAY_NS
        answer = self.reflector.reflect(self.packet, SOURCE, arrived_ns, arrived_ns + 50_000, 64)
        if answer is None:
            raise AssertionError
        self.packet = answer

    def receive(self, now_ns: int) -> None:
        self.sender.receive(self.packet, now_ns + 2 * DELAY_NS)

    def deadlines(self, now_ns: int) -> None:
        self.sender.next_deadline_ns()
        self.sender.handle_timer(now_ns)

    def take_sample(self, now_ns: int) -> None:
        self.sender.take_sample(now_ns)


def run(kind: str, length: int, rounds: int) -> list[int]:
    """Nanoseconds spent in each of the first `length` steps of the chain, over all rounds."""
    rig = Rig(kind)
    steps = [getattr(rig, name) for name in CHAIN[:length]]
    spent = [0] * length
    for i in range(rounds):
        now_ns = START_NS + i * INTERVAL_NS
        for at, step in enumerate(steps):
            begin = perf_counter_ns()
            step(now_ns)
            spent[at] += perf_counter_ns() - begin
    return spent


def count(kind: str, length: int, rounds: int) -> int:
    """Instructions of a whole process that runs the first `length` steps."""
    argv = [sys.executable, "-m", "tests.bench.micro_stamp", "--kind", kind]
    argv += ["--length", str(length), "--rounds", str(rounds)]
    tool = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    done = subprocess.run([*tool, *argv], capture_output=True, text=True, check=True)
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if found is None:
        raise ValueError(done.stderr)
    return int(found[1].replace(",", ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", action="store_true", help="count instructions, under valgrind")
    parser.add_argument("--kind", choices=KINDS, help="run only, and print nothing")
    parser.add_argument("--length", type=int, default=len(CHAIN))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    if options.kind:
        run(options.kind, options.length, options.rounds)
        return
    for kind in KINDS:
        before = 0.0
        spent = run(kind, len(CHAIN), 10 * options.rounds)
        for length, name in enumerate(CHAIN, start=1):
            if options.count:
                more = count(kind, length, 2 * options.rounds) - count(kind, length, options.rounds)
                each = more / options.rounds
                print(f"{kind:14} {name:13} {each - before:8.0f} instructions")
                before = each
            else:
                each = spent[length - 1] / 10 / options.rounds
                print(f"{kind:14} {name:13} {each / 1000:8.2f} us")


if __name__ == "__main__":
    main()
