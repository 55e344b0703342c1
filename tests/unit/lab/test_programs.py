import json
import math

from lab.programs import parse_iperf3, parse_ping

PING = """\
PING 203.0.113.2 (203.0.113.2) 56(84) bytes of data.
64 bytes from 203.0.113.2: icmp_seq=1 ttl=62 time=20.1 ms
64 bytes from 203.0.113.2: icmp_seq=3 ttl=62 time=19.0 ms
64 bytes from 203.0.113.2: icmp_seq=3 ttl=62 time=19.4 ms (DUP!)
64 bytes from 203.0.113.2: icmp_seq=2 ttl=62 time=240 ms

--- 203.0.113.2 ping statistics ---
4 packets transmitted, 3 received, +1 duplicates, 25% packet loss, time 602ms
rtt min/avg/max/mdev = 19.031/93.121/240.211/103.8 ms
"""


def test_ping() -> None:
    result = parse_ping(PING, sent=4)
    assert (result.received, result.lost, result.duplicates, result.reordered) == (3, 1, 1, 1)
    assert result.rtt_ms == (20.1, 19.0, 240.0)
    assert (result.least_ms, result.mean_ms, result.most_ms) == (19.031, 93.121, 240.211)


def test_ping_without_an_answer() -> None:
    silence = "PING 203.0.113.2\n\n1 packets transmitted, 0 received, 100% packet loss"
    result = parse_ping(silence, sent=1)
    assert (result.received, result.lost, result.rtt_ms) == (0, 1, ())
    assert math.isnan(result.mean_ms)


def test_iperf3_in_each_direction() -> None:
    report = {
        "end": {
            "sum_sent": {"bits_per_second": 9e6, "retransmits": 3},
            "sum_received": {"bits_per_second": 8e6},
            "sum_received_bidir_reverse": {"bits_per_second": 5e6},
            "cpu_utilization_percent": {"host_total": 12.5},
        }
    }
    forward = parse_iperf3(json.dumps(report), direction="forward")
    assert (forward.forward_mbit, forward.backward_mbit) == (8, 0)
    assert (forward.retransmits, forward.cpu_ratio) == (3, 0.125)
    backward = parse_iperf3(json.dumps(report), direction="backward")
    assert (backward.forward_mbit, backward.backward_mbit) == (0, 8)
    both = parse_iperf3(json.dumps(report), direction="both")
    assert (both.forward_mbit, both.backward_mbit) == (8, 5)
