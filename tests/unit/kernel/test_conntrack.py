"""Messages of the kernel about flows (linux/netfilter/nfnetlink_conntrack.h)."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.kernel.conntrack import FlowKey, TrackedFlow, _of, end_flows, parse_flow
from appliance.kernel.netlink import attribute, attributes, messages, nested

MARK = 0x21000000


def message(**other: bytes) -> bytes:
    """A TCP flow of class 2 as the kernel tells it, with other parts where they are given."""
    parts = {
        "original": nested(
            1,
            nested(
                1,
                attribute(1, ip_address("192.0.2.9").packed),
                attribute(2, ip_address("198.51.100.7").packed),
            ),
            nested(
                2,
                attribute(1, b"\x06"),
                attribute(2, struct.pack(">H", 40000)),
                attribute(3, struct.pack(">H", 873)),
            ),
        ),
        "status": attribute(3, struct.pack(">I", 1 << 14 | 0x18E)),
        "mark": attribute(8, struct.pack(">I", MARK)),
        "sent": nested(
            9, attribute(1, struct.pack(">Q", 3)), attribute(2, struct.pack(">Q", 4500))
        ),
        "received": nested(
            10, attribute(1, struct.pack(">Q", 1)), attribute(2, struct.pack(">Q", 40))
        ),
        "ident": attribute(12, struct.pack(">I", 77)),
    }
    return struct.pack(">BBH", 2, 0, 0) + b"".join({**parts, **other}.values())


FLOW = TrackedFlow(
    77,
    6,
    ip_address("192.0.2.9"),
    ip_address("198.51.100.7"),
    40000,
    873,
    MARK,
    4500,
    40,
    is_offloaded=True,
)


@pytest.mark.parametrize(("mark", "mask"), [(0, 0), (0x01000000, 0xF0000000)])
def test_all_flows_of_the_machine_are_never_ended(mark: int, mask: int) -> None:
    with pytest.raises(ValueError, match="mask"):
        end_flows(mark, mask)


def test_a_flow_is_read() -> None:
    assert list(parse_flow(message())) == [FLOW]


def test_ipv6_without_ports_counters_and_fast_path() -> None:
    original = nested(
        1,
        nested(
            1,
            attribute(3, ip_address("2001:db8::9").packed),
            attribute(4, ip_address("2001:db8:1::7").packed),
        ),
        nested(2, attribute(1, b"\x32")),
    )
    told = message(
        original=original, sent=b"", received=b"", status=attribute(3, struct.pack(">I", 0x18E))
    )
    assert list(parse_flow(told)) == [
        TrackedFlow(
            77,
            50,
            ip_address("2001:db8::9"),
            ip_address("2001:db8:1::7"),
            None,
            None,
            MARK,
            None,
            None,
            is_offloaded=False,
        )
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"mark": b""},
        {"mark": attribute(8, struct.pack(">I", 0x0F000000))},  # an uplink's mark is no class
        {"original": b""},
        {"original": nested(1, nested(1, attribute(1, bytes(3)), attribute(2, bytes(4))))},
        {"ident": b""},
    ],
)
def test_what_has_no_class_or_makes_no_sense_is_left_out(other: dict[str, bytes]) -> None:
    assert list(parse_flow(message(**other))) == []


@given(st.integers(0, 200), st.binary(max_size=8))
def test_no_damage_breaks_the_reading(place: int, junk: bytes) -> None:
    whole = message()
    list(parse_flow(whole[:place] + junk + whole[place + len(junk) :]))
    list(parse_flow(whole[:place]))


@pytest.mark.parametrize(
    ("source", "destination", "kinds"),
    [("192.0.2.9", "198.51.100.7", (1, 2)), ("2001:db8::9", "2001:db8:f::7", (3, 4))],
)
def test_one_flow_is_named_as_the_kernel_names_it(
    source: str, destination: str, kinds: tuple[int, int]
) -> None:
    ends = ip_address(source), ip_address(destination)
    ((_, _, _, payload),) = messages(_of(FlowKey(17, ends[0], 9, ends[1], 443), 1 << 8))
    assert payload[0] == (2 if ends[0].version == 4 else 10)
    original = attributes(attributes(payload, 4)[1])
    assert attributes(original[1]) == dict(zip(kinds, (e.packed for e in ends), strict=True))
    assert attributes(original[2]) == {1: b"\x11", 2: b"\0\x09", 3: b"\x01\xbb"}
