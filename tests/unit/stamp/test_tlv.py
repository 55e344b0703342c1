import pytest
from scapy.contrib import stamp as scapy_stamp

from appliance.stamp.errors import MalformedPacket
from appliance.stamp.packet import Authenticator
from appliance.stamp.tlv import (
    INTEGRITY,
    MALFORMED,
    UNRECOGNIZED,
    ClassOfService,
    DirectMeasurement,
    PathReport,
    Type,
    decode_class_of_service,
    decode_direct_measurement,
    decode_path_report,
    encode,
    encode_class_of_service,
    encode_direct_measurement,
    encode_padding,
    encode_path_report,
    find,
    is_sealed,
    iterate,
    reflect_tlvs,
    seal,
)

AUTHENTICATOR = Authenticator(bytes(32))


def fill_nothing(_kind: int, _value: memoryview) -> int:
    return 0


def test_layouts() -> None:
    assert encode_padding(7).hex() == "80010003" + "000000"
    assert encode_class_of_service(46).hex() == "80040004" + "b8000000"
    assert encode_direct_measurement(0x1_0000_0007).hex() == "8005000c" + "00000007" + "0" * 16
    assert encode_path_report([0x11, 0x22]).hex() == (
        "80fc0018" + "0011" + "0" * 20 + "0022" + "0" * 20
    )


def test_values_are_read() -> None:
    assert decode_class_of_service(bytes.fromhex("bbb50000")) == ClassOfService(46, 59, 1, True)
    assert decode_direct_measurement(bytes.fromhex("000000010000000200000003")) == (
        DirectMeasurement(1, 2, 3)
    )
    value = bytes.fromhex("0011ffff00000002000000030022000000000005ffffffff")
    assert decode_path_report(value) == (PathReport(0x11, 2, 3), PathReport(0x22, 5, 0xFFFFFFFF))
    assert decode_path_report(b"") == ()


@pytest.mark.parametrize("size", [0, 3, 5, 11, 13])
def test_values_of_the_wrong_length_are_malformed(size: int) -> None:
    with pytest.raises(MalformedPacket):
        decode_class_of_service(bytes(size))
    with pytest.raises(MalformedPacket):
        decode_direct_measurement(bytes(size))
    if size:
        with pytest.raises(MalformedPacket):
            decode_path_report(bytes(size))


def test_iterate_yields_all_in_order() -> None:
    tlvs = encode_padding(6) + encode_class_of_service(1)
    assert [(t.offset, t.flags, t.type, bytes(t.value)) for t in iterate(tlvs)] == [
        (0, UNRECOGNIZED, 1, bytes(2)),
        (6, UNRECOGNIZED, 4, bytes.fromhex("04000000")),
    ]
    assert list(iterate(b"")) == []


@pytest.mark.parametrize("octets", ["80", "800100", "80010001", "8001000500000000", "8005ffff"])
def test_a_tlv_that_overruns_is_malformed(octets: str) -> None:
    with pytest.raises(MalformedPacket):
        list(iterate(bytes.fromhex(octets)))


def test_find_skips_what_the_far_end_flagged() -> None:
    tlv = bytearray(encode_direct_measurement(1))
    for flag in (UNRECOGNIZED, MALFORMED, INTEGRITY):
        tlv[0] = flag
        assert find(bytes(tlv), Type.DIRECT_MEASUREMENT) is None
    tlv[0] = 0
    found = find(encode_padding(9) + tlv, Type.DIRECT_MEASUREMENT)
    assert found is not None
    assert decode_direct_measurement(found) == DirectMeasurement(1)
    assert find(bytes(tlv), Type.PATH_REPORT) is None


def test_our_own_mistakes_are_value_errors() -> None:
    with pytest.raises(ValueError, match="octets"):
        encode_padding(3)
    with pytest.raises(ValueError, match="octets"):
        encode(Type.EXTRA_PADDING, bytes(1 << 16))
    for dscp in (-1, 64):
        with pytest.raises(ValueError, match="DSCP"):
            encode_class_of_service(dscp)


def test_the_seal_covers_the_sequence_number_and_all_before_it() -> None:
    tlvs = seal(7, encode_direct_measurement(1), AUTHENTICATOR)
    assert tlvs[16:20].hex() == "80080010"
    assert tlvs[20:] == AUTHENTICATOR.tag((7).to_bytes(4) + encode_direct_measurement(1))
    assert is_sealed(7, tlvs, AUTHENTICATOR)
    assert is_sealed(7, tlvs + encode_padding(30), AUTHENTICATOR)
    assert not is_sealed(8, tlvs, AUTHENTICATOR)
    assert not is_sealed(7, tlvs, Authenticator(bytes(31) + b"x"))
    for octet in (0, 1, *range(4, 16), 17, *range(20, 36)):  # all but lengths and own flags
        changed = bytearray(tlvs)
        changed[octet] ^= 1
        assert not is_sealed(7, changed, AUTHENTICATOR)


def test_what_needs_a_seal_and_what_does_not() -> None:
    assert is_sealed(7, b"", AUTHENTICATOR)
    assert is_sealed(7, encode_padding(8), AUTHENTICATOR)
    assert not is_sealed(7, encode_direct_measurement(1), AUTHENTICATOR)


def test_nothing_but_padding_may_follow_the_seal() -> None:
    tlvs = seal(7, encode_padding(8), AUTHENTICATOR)
    assert is_sealed(7, tlvs, AUTHENTICATOR)
    assert not is_sealed(7, tlvs + encode_direct_measurement(1), AUTHENTICATOR)
    assert not is_sealed(7, seal(7, tlvs, AUTHENTICATOR), AUTHENTICATOR)  # nor a second one
    assert not is_sealed(7, encode(Type.HMAC, bytes(15)), AUTHENTICATOR)


def test_reflected_tlvs_keep_their_length_and_get_flags() -> None:
    tlvs = encode_padding(6) + encode_class_of_service(1) + bytes.fromhex("80630002abcd")

    def fill(kind: int, value: memoryview) -> int:
        if kind == Type.CLASS_OF_SERVICE:
            value[3] = 9
            return 0
        return UNRECOGNIZED if kind == 0x63 else 0

    reflected, is_whole = reflect_tlvs(tlvs, (0, 0), None, fill)
    assert is_whole
    assert reflected.hex() == "000100020000" + "0004000404000009" + "80630002abcd"


@pytest.mark.parametrize("rest", ["80", "8001", "800100", "80010004000000"])
def test_from_an_overrun_on_octets_are_copied_and_flagged(rest: str) -> None:
    tlvs = encode_padding(4) + bytes.fromhex(rest)
    reflected, _ = reflect_tlvs(tlvs, (0, 0), None, fill_nothing)
    assert reflected.hex() == "00010000" + "40" + rest[2:]
    reflected, is_whole = reflect_tlvs(tlvs, (0, 0), AUTHENTICATOR, fill_nothing)
    assert not is_whole
    assert reflected.hex() == "20010000" + "60" + rest[2:]


def test_the_answer_is_sealed_again_with_its_own_number() -> None:
    tlvs = seal(7, encode_class_of_service(1), AUTHENTICATOR) + encode_padding(9)
    reflected, is_whole = reflect_tlvs(tlvs, (7, 1000), AUTHENTICATOR, fill_nothing)
    assert is_whole
    assert [tlv.flags for tlv in iterate(reflected)] == [0, 0, 0]
    assert is_sealed(1000, reflected, AUTHENTICATOR)
    assert not is_sealed(7, reflected, AUTHENTICATOR)


def test_unsealed_tlvs_come_back_as_they_were_with_i_set() -> None:
    def fill(_kind: int, _value: memoryview) -> int:
        raise AssertionError

    tlvs = encode_class_of_service(1) + encode_padding(9)
    reflected, is_whole = reflect_tlvs(tlvs, (7, 1000), AUTHENTICATOR, fill)
    assert not is_whole
    assert [(tlv.flags, tlv.value) for tlv in iterate(reflected)] == [
        (INTEGRITY, tlv.value) for tlv in iterate(tlvs)
    ]


def test_scapy_reads_our_tlvs() -> None:
    packet = bytes(44) + encode_direct_measurement(9) + encode_padding(6)
    found = scapy_stamp.STAMPSessionSenderTestUnauthenticated(packet).tlv_objects
    # Its names for the flags run from the wrong end, so only their octet is compared.
    assert [(tlv.type, tlv.len, int(tlv.flags)) for tlv in found] == [(5, 12, 0x80), (1, 2, 0x80)]
    assert found[0].value == (9).to_bytes(4) + bytes(8)


def test_we_read_scapys_tlvs() -> None:
    tlv = scapy_stamp.STAMPTestTLV(flags=0x40, type=5, len=12, value=bytes(range(12)))
    (found,) = iterate(bytes(tlv))
    assert (found.flags, found.type, bytes(found.value)) == (MALFORMED, 5, bytes(range(12)))
