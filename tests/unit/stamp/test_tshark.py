"""tshark's decoder, which shares no line with ours, reads what we send."""

import os
import subprocess
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from scapy.utils import wrpcap

from appliance.stamp.packet import pack_sender, split_ntp, split_ptp
from appliance.stamp.reflector import SessionReflector
from appliance.stamp.sender import SessionSender

SENT_NS = 1_700_000_000_123_456_789  # 2023-11-14 22:13:20 UTC
RECEIVED_NS = SENT_NS + 10_000_000
ANSWERED_NS = RECEIVED_NS + 50_000
FIELDS = (
    "seq_number",
    "timestamp",
    "error_estimate.s",
    "error_estimate.z",
    "error_estimate.scale",
    "error_estimate.multiplier",
    "mbz1",  # where STAMP has the SSID
    "receive_timestamp",
    "sender_seq_number",
    "sender_timestamp",
    "sender_error_estimate",
    "sender_ttl",
)


def frame(octets: bytes, *, is_answer: bool) -> Packet:
    client, server = ("192.0.2.1", 40000), ("192.0.2.2", 862)
    source, destination = (server, client) if is_answer else (client, server)
    network = IP(src=source[0], dst=destination[0]) / UDP(sport=source[1], dport=destination[1])
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / network / octets


def decode(folder: Path, octets: bytes, *, is_answer: bool) -> dict[str, str]:
    """What tshark makes of one packet: field name -> text, of the first occurrence."""
    capture = folder / "stamp.pcap"
    wrpcap(str(capture), [frame(octets, is_answer=is_answer)])
    argv = ["tshark", "-r", str(capture), "-d", "udp.port==862,twamp.test", "-T", "fields"]
    argv += ["-E", "separator=|", "-E", "occurrence=f"]
    for field in FIELDS:
        argv += ["-e", f"twamp.test.{field}"]
    environment = os.environ | {"TZ": "UTC", "HOME": str(folder)}
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment)
    return dict(zip(FIELDS, done.stdout.rstrip("\n").split("|"), strict=True))


def is_true(text: str) -> bool:
    return text in ("1", "True")  # tshark 4.0 and later ones


@pytest.fixture(params=["ptp", "ntp"])
def probe(request: pytest.FixtureRequest) -> bytes:
    """A probe as our sender makes it, and one of a sender that writes NTP."""
    if request.param == "ptp":
        return SessionSender(0x11, first_sequence=7).probe(SENT_NS)
    return pack_sender((7, *split_ntp(SENT_NS), 0x0BD2, 0x11))


def test_tshark_reads_our_probe(tmp_path: Path, probe: bytes) -> None:
    found = decode(tmp_path, probe, is_answer=False)
    assert found["seq_number"] == "7"
    assert "22:13:20.12345678" in found["timestamp"]  # it cuts NTP fractions off
    assert "2023" in found["timestamp"]
    assert is_true(found["error_estimate.z"]) == (probe[12] & 0x40 == 0x40)
    assert not is_true(found["error_estimate.s"])
    assert (found["error_estimate.scale"], found["error_estimate.multiplier"]) == ("11", "210")
    assert int(found["mbz1"], 0) == 0x11


def test_tshark_reads_our_answer(tmp_path: Path, probe: bytes) -> None:
    source = ("192.0.2.1", 40000)
    answer = SessionReflector().reflect(probe, source, RECEIVED_NS, ANSWERED_NS, 63)
    assert answer is not None
    found = decode(tmp_path, answer, is_answer=True)
    assert found["seq_number"] == "0"
    assert "22:13:20.13350678" in found["timestamp"]
    assert is_true(found["error_estimate.z"]) == (probe[12] & 0x40 == 0x40)
    assert int(found["mbz1"], 0) == 0x11
    assert "22:13:20.13345678" in found["receive_timestamp"]
    assert found["sender_seq_number"] == "7"
    if not is_true(found["error_estimate.z"]):  # tshark 4.0 takes this one for NTP always
        assert "22:13:20.12345678" in found["sender_timestamp"]
    assert int(found["sender_error_estimate"], 0) == int.from_bytes(probe[12:14])
    assert found["sender_ttl"] == "63"


def test_tshark_sees_the_whole_second_of_ptp(tmp_path: Path) -> None:
    octets = pack_sender((1, *split_ptp(1_700_000_000_999_999_999), 0x4BD2, 0x11))
    assert "22:13:20.999999999" in decode(tmp_path, octets, is_answer=False)["timestamp"]
