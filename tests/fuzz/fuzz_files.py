"""The recorder's files, as they may come out of a crash, and what nft lists of learned names."""

import tempfile
from pathlib import Path

from appliance.contract.codec import encode
from appliance.kernel.nft import parse_learned
from appliance.telemetry.recording import NotARecording, open_recording, read_history
from tests.fuzz.harness import Target
from tests.unit.api.scripted import FIRST, MOVE

_DIRECTORY = tempfile.TemporaryDirectory(prefix="branchline-fuzz-")
_MOVES = Path(_DIRECTORY.name) / "moves-00000001.jsonl"
_EVENTS = Path(_DIRECTORY.name) / "events-00000001.jsonl"

MOVES = b"".join(encode(move) + b"\n" for move in (FIRST, MOVE))
EVENTS = b"""\
{"run": "f3a1", "wall": 1763829000.1, "now": 20.5, "preamble": 1}
{"now":20.5,"event":"LoopStalled","late_s":0.1}
{"now":21.5,"event":"LoopStalled","late_s":0.2}
{"gap": 7}
"""

LEARNED = b"""\
{"nftables": [{"metainfo": {"version": "1.1.3"}}, {"set": {"family": "inet", "table": "branchline",
 "name": "names_0123abcd_4a", "type": "ipv4_addr", "elem": ["192.0.2.1", "192.0.2.2"]}}]}
"""


def fuzz_moves(octets: bytes) -> None:
    """Every line is a move or left out; what is found can be written again."""
    _MOVES.write_bytes(octets)
    history = read_history(_MOVES.parent, 1000)
    assert len(history.moves) <= octets.count(b"\n")
    encode(history)


def fuzz_events(octets: bytes) -> None:
    """No recording, or lines of it without those that only the recorder needs."""
    _EVENTS.write_bytes(octets)
    try:
        recording = open_recording(_EVENTS)
    except NotARecording:
        return
    lines = list(recording.lines())
    assert len(lines) + recording.gaps == octets.count(b"\n") - 1


def fuzz_learned(octets: bytes) -> None:
    """Names of our sets with addresses, fit to be given to nft again, or ValueError."""
    try:
        found = parse_learned(octets)
    except ValueError:
        return
    for name in found:
        assert name.isascii()
        assert set(name) <= set("names_0123456789abcdef")


TARGETS = (
    Target("learned-names", fuzz_learned, (LEARNED,)),
    Target("recorded-moves", fuzz_moves, (MOVES,)),
    Target("recorded-events", fuzz_events, (EVENTS,)),
)
