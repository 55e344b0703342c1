"""The codec against layouts written out by hand, openssl's HMAC and scapy's STAMP layer."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib import stamp as scapy_stamp

from appliance.stamp.errors import ForgedPacket, MalformedPacket, StampError
from appliance.stamp.packet import (
    AUTHENTICATED_SIZE,
    BASE_SIZE,
    COVERED_SIZE,
    Authenticator,
    ErrorEstimate,
    decode_error_estimate,
    encode_error_estimate,
    join_ntp,
    join_ptp,
    pack_reflector,
    pack_sender,
    parse_reflector,
    parse_sender,
    split_ntp,
    split_ptp,
)

KEY = bytes(range(32))
TIME_NS = 1_700_000_000_123_456_789
SENDER = (0x01020304, 0x11121314, 0x15161718, 0x4BD2, 0x2122)
REFLECTOR = (
    *(0x31323334, 0x41424344, 0x45464748, 0x4BD2, 0x2122, 0x51525354, 0x55565758),
    *(0x01020304, 0x11121314, 0x15161718, 0x0201, 0x3F),
)


def openssl_tag(octets: bytes, key: bytes) -> bytes:
    """The HMAC as the `openssl` program computes it, truncated as RFC 8762 section 4.4 says."""
    argv = ["openssl", "mac", "-digest", "SHA256", "-macopt", f"hexkey:{key.hex()}", "HMAC"]
    done = subprocess.run(argv, input=octets, capture_output=True, check=True)
    return bytes.fromhex(done.stdout.decode())[:16]


def test_unauthenticated_sender_layout() -> None:
    assert pack_sender(SENDER).hex() == (
        "01020304"  # sequence number
        "1112131415161718"  # timestamp
        "4bd2"  # error estimate
        "2122" + "00" * 28  # SSID, MBZ
    )


def test_unauthenticated_reflector_layout() -> None:
    assert pack_reflector(REFLECTOR).hex() == (
        "31323334"  # sequence number
        "4142434445464748"  # timestamp
        "4bd2"  # error estimate
        "2122"  # SSID
        "5152535455565758"  # receive timestamp
        "01020304"  # sender's sequence number
        "1112131415161718"  # sender's timestamp
        "0201"  # sender's error estimate
        "0000"
        "3f"  # sender's TTL
        "000000"
    )


def test_authenticated_sender_layout() -> None:
    packet = pack_sender(SENDER, Authenticator(KEY))
    assert packet[:COVERED_SIZE].hex() == (
        "01020304" + "00" * 12 + "1112131415161718" + "4bd2" + "2122" + "00" * 68
    )
    assert packet[COVERED_SIZE:] == openssl_tag(packet[:COVERED_SIZE], KEY)
    assert len(packet) == AUTHENTICATED_SIZE


def test_authenticated_reflector_layout() -> None:
    packet = pack_reflector(REFLECTOR, Authenticator(KEY))
    assert packet[:COVERED_SIZE].hex() == (
        "31323334" + "00" * 12  # sequence number
        + "4142434445464748" + "4bd2" + "2122" + "00" * 4  # timestamp, error estimate, SSID
        + "5152535455565758" + "00" * 8  # receive timestamp
        + "01020304" + "00" * 12  # sender's sequence number
        + "1112131415161718" + "0201" + "00" * 6  # sender's timestamp and error estimate
        + "3f" + "00" * 15  # sender's TTL
    )  # fmt: skip
    assert packet[COVERED_SIZE:] == openssl_tag(packet[:COVERED_SIZE], KEY)


@pytest.mark.parametrize("length", [16, 20, 64, 65, 200])
def test_keys_of_any_length_give_the_tag_that_openssl_gives(length: int) -> None:
    key = bytes(i % 251 for i in range(length))
    assert Authenticator(key).tag(b"some octets") == openssl_tag(b"some octets", key)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="16 octets"):
        Authenticator(bytes(15))


def test_what_is_packed_is_parsed() -> None:
    for authenticator in (None, Authenticator(KEY)):
        assert parse_sender(pack_sender(SENDER, authenticator), authenticator) == SENDER
        packet = pack_reflector(REFLECTOR, authenticator)
        assert parse_reflector(packet, authenticator) == REFLECTOR
        assert parse_reflector(memoryview(packet), authenticator) == REFLECTOR


def test_must_be_zero_octets_are_not_looked_at() -> None:
    sender = pack_sender(SENDER)
    assert parse_sender(sender[:16] + b"\xff" * 28) == SENDER
    reflector = bytearray(pack_reflector(REFLECTOR))
    reflector[38:40] = b"\xff\xff"
    reflector[41:44] = b"\xff\xff\xff"
    assert parse_reflector(reflector) == REFLECTOR


@pytest.mark.parametrize("size", [14, 15, 16, 41, 43])
def test_twamp_light_senders_may_be_short_and_have_no_ssid(size: int) -> None:
    assert parse_sender(pack_sender(SENDER)[:size]) == (*SENDER[:4], 0)


@pytest.mark.parametrize("size", [0, 1, 13])
def test_a_truncated_probe_is_malformed(size: int) -> None:
    with pytest.raises(MalformedPacket, match=f"{size} octets"):
        parse_sender(pack_sender(SENDER)[:size])


@pytest.mark.parametrize("size", [0, 14, BASE_SIZE - 1])
def test_a_truncated_answer_is_malformed(size: int) -> None:
    with pytest.raises(MalformedPacket, match=f"{size} octets"):
        parse_reflector(pack_reflector(REFLECTOR)[:size])


@pytest.mark.parametrize("size", [0, BASE_SIZE, AUTHENTICATED_SIZE - 1])
def test_a_truncated_authenticated_packet_is_malformed(size: int) -> None:
    authenticator = Authenticator(KEY)
    with pytest.raises(MalformedPacket):
        parse_sender(pack_sender(SENDER, authenticator)[:size], authenticator)
    with pytest.raises(MalformedPacket):
        parse_reflector(pack_reflector(REFLECTOR, authenticator)[:size], authenticator)


def test_an_error_estimate_without_multiplier_is_malformed() -> None:
    with pytest.raises(MalformedPacket, match="multiplier"):
        parse_sender(pack_sender((1, 2, 3, 0x4B00, 5)))
    with pytest.raises(MalformedPacket, match="multiplier"):
        parse_reflector(pack_reflector((*REFLECTOR[:3], 0x4B00, *REFLECTOR[4:])))


@pytest.mark.parametrize("octet", [0, 15, 27, 95, 96, 111])
def test_one_flipped_bit_anywhere_is_a_forgery(octet: int) -> None:
    authenticator = Authenticator(KEY)
    for packet, parse in (
        (pack_sender(SENDER, authenticator), parse_sender),
        (pack_reflector(REFLECTOR, authenticator), parse_reflector),
    ):
        forged = bytearray(packet)
        forged[octet] ^= 0x10
        with pytest.raises(ForgedPacket):
            parse(forged, authenticator)


def test_another_key_is_a_forgery() -> None:
    packet = pack_sender(SENDER, Authenticator(KEY))
    with pytest.raises(ForgedPacket):
        parse_sender(packet, Authenticator(KEY[::-1]))


def test_every_error_is_a_stamp_error() -> None:
    assert issubclass(MalformedPacket, StampError)
    assert issubclass(ForgedPacket, StampError)
    assert not issubclass(StampError, ValueError)  # our own mistakes are told apart


# -- timestamps -----------------------------------------------------------------------------------


def test_timestamps_of_known_moments() -> None:
    assert split_ptp(TIME_NS) == (1_700_000_000, 123_456_789)
    assert split_ntp(0) == (2_208_988_800, 0)
    assert split_ntp(500_000_000) == (2_208_988_800, 1 << 31)
    # RFC 5905, figure 4: the first day of NTP era 1 is 8 February 2036.
    assert split_ntp(2_085_978_496 * 10**9) == (0, 0)
    assert join_ntp(0, 0) == 2_085_978_496 * 10**9


@given(st.integers(0, (1 << 32) * 10**9 - 1))
def test_ptp_holds_nanoseconds(time_ns: int) -> None:
    assert join_ptp(*split_ptp(time_ns)) == time_ns


@given(st.integers(0, (1 << 31) * 10**9))  # 1970 to 2038, over the end of an era
def test_ntp_holds_nanoseconds(time_ns: int) -> None:
    seconds, fraction = split_ntp(time_ns)
    assert 0 <= seconds < 1 << 32
    assert 0 <= fraction < 1 << 32
    assert join_ntp(seconds, fraction) == time_ns


# -- error estimate -------------------------------------------------------------------------------


def test_error_estimate_bits() -> None:
    assert encode_error_estimate(ErrorEstimate(True, False, 0)) == 0x8001
    assert encode_error_estimate(ErrorEstimate(False, True, 0)) == 0x4001
    assert decode_error_estimate(0xC000 | 32 << 8 | 3) == ErrorEstimate(True, True, 3 * 10**9)


@given(st.booleans(), st.booleans(), st.integers(0, 10**18))
def test_error_estimates_round_up_by_less_than_a_percent(
    is_synchronized: bool, is_ptp: bool, error_ns: int
) -> None:
    value = encode_error_estimate(ErrorEstimate(is_synchronized, is_ptp, error_ns))
    assert value & 0xFF  # never zero: RFC 4656 section 4.1.2
    decoded = decode_error_estimate(value)
    assert (decoded.is_synchronized, decoded.is_ptp) == (is_synchronized, is_ptp)
    assert error_ns <= decoded.error_ns <= error_ns * 1.008 + 1


def test_an_error_estimate_that_does_not_fit_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        encode_error_estimate(ErrorEstimate(False, True, 1 << 80))


# -- an independent codec -------------------------------------------------------------------------


def test_scapy_reads_our_probe() -> None:
    probe = scapy_stamp.STAMPSessionSenderTestUnauthenticated(pack_sender(SENDER))
    assert probe.seq == SENDER[0]
    assert probe.ts == SENDER[1] << 32 | SENDER[2]
    assert (probe.err_estimate.S, probe.err_estimate.Z) == (0, 1)
    assert (probe.err_estimate.scale, probe.err_estimate.multiplier) == (0x0B, 0xD2)
    assert probe.ssid == SENDER[4]
    assert probe.mbz == 0


def test_scapy_reads_our_answer() -> None:
    answer = scapy_stamp.STAMPSessionReflectorTestUnauthenticated(pack_reflector(REFLECTOR))
    assert answer.seq == REFLECTOR[0]
    assert answer.ts == REFLECTOR[1] << 32 | REFLECTOR[2]
    assert answer.ssid == REFLECTOR[4]
    assert answer.ts_rx == REFLECTOR[5] << 32 | REFLECTOR[6]
    assert answer.seq_sender == REFLECTOR[7]
    assert (answer.err_estimate_sender.Z, answer.err_estimate_sender.multiplier) == (0, 1)
    assert answer.ttl_sender == REFLECTOR[11]


def test_we_read_scapys_answer() -> None:
    # Its timestamp fields take seconds since 1900; quarters of a second are exact in a float.
    estimate = scapy_stamp.ErrorEstimate(S=1, Z=0, scale=5, multiplier=9)
    answer = scapy_stamp.STAMPSessionReflectorTestUnauthenticated(
        seq=7,
        ts=4_000_000_000.5,
        err_estimate=estimate,
        ssid=10,
        ts_rx=4_000_000_000.25,
        seq_sender=13,
        ts_sender=4_000_000_000.75,
        err_estimate_sender=estimate,
        ttl_sender=16,
    )
    assert parse_reflector(bytes(answer)) == (
        *(7, 4_000_000_000, 2 << 30, 0x8509, 10, 4_000_000_000, 1 << 30),
        *(13, 4_000_000_000, 3 << 30, 0x8509, 16),
    )


def test_we_read_scapys_ntp_time() -> None:
    # As a float the time of day is good to about half a microsecond.
    probe = scapy_stamp.STAMPSessionSenderTestUnauthenticated(ts=TIME_NS / 1e9 + 2_208_988_800)
    _, seconds, fraction, estimate, ssid = parse_sender(bytes(probe))
    assert decode_error_estimate(estimate).is_ptp is False
    assert abs(join_ntp(seconds, fraction) - TIME_NS) < 1000
    assert ssid == 1
