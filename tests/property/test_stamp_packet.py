"""What is packed is parsed, and whatever else comes is a StampError."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from appliance.stamp.errors import StampError
from appliance.stamp.packet import (
    Authenticator,
    ReflectorFields,
    SenderFields,
    pack_reflector,
    pack_sender,
    parse_reflector,
    parse_sender,
)
from appliance.stamp.tlv import (
    INTEGRITY,
    MALFORMED,
    Type,
    encode,
    encode_padding,
    is_sealed,
    iterate,
    reflect_tlvs,
    seal,
)

AUTHENTICATOR = Authenticator(b"a key of enough octets")
authenticators = st.sampled_from([None, AUTHENTICATOR])
octet = st.integers(0, 0xFF)
short = st.integers(0, 0xFFFF)
estimates = short.filter(lambda value: value & 0xFF)
long = st.integers(0, 0xFFFFFFFF)
senders = st.tuples(long, long, long, estimates, short)
reflectors = st.tuples(
    *(long, long, long, estimates, short, long, long),
    *(long, long, long, short, octet),
)
tlv_lists = st.lists(
    st.builds(encode, st.sampled_from([1, 4, 5, 99, 252]), st.binary(max_size=30)), max_size=5
).map(b"".join)


@given(senders, authenticators, st.binary(max_size=40))
def test_probes_round_trip_whatever_follows(
    fields: SenderFields, authenticator: Authenticator | None, rest: bytes
) -> None:
    assert parse_sender(pack_sender(fields, authenticator) + rest, authenticator) == fields


@given(reflectors, authenticators, st.binary(max_size=40))
def test_answers_round_trip_whatever_follows(
    fields: ReflectorFields, authenticator: Authenticator | None, rest: bytes
) -> None:
    assert parse_reflector(pack_reflector(fields, authenticator) + rest, authenticator) == fields


@given(st.binary(max_size=200), authenticators)
def test_any_octets_parse_or_are_a_stamp_error(
    octets: bytes, authenticator: Authenticator | None
) -> None:
    with contextlib.suppress(StampError):
        parse_sender(octets, authenticator)
    with contextlib.suppress(StampError):
        parse_reflector(octets, authenticator)
    with contextlib.suppress(StampError):
        list(iterate(octets))


@given(st.binary(max_size=100), authenticators, octet)
def test_any_tlvs_are_reflected_with_their_length_and_values(
    tlvs: bytes, authenticator: Authenticator | None, flags: int
) -> None:
    reflected, is_whole = reflect_tlvs(tlvs, (1, 2), authenticator, lambda _kind, _value: flags)
    assert len(reflected) == len(tlvs)
    if authenticator is None:
        assert is_whole
    with contextlib.suppress(StampError):
        pairs = zip(iterate(tlvs), iterate(reflected), strict=True)
        for before, after in pairs:
            assert (before.type, before.offset) == (after.type, after.offset)
            if after.type != Type.HMAC:
                assert before.value == after.value
            if not is_whole:
                assert after.flags & ~MALFORMED == INTEGRITY


@given(long, tlv_lists, st.integers(4, 40), st.data())
def test_a_seal_holds_until_an_octet_under_it_changes(
    sequence: int, tlvs: bytes, padding: int, data: st.DataObject
) -> None:
    sealed = seal(sequence, tlvs, AUTHENTICATOR)
    packet = sealed + encode_padding(padding)
    assert is_sealed(sequence, packet, AUTHENTICATOR)
    changed = bytearray(packet)
    changed[
        data.draw(st.sampled_from([*range(len(tlvs)), *range(len(tlvs) + 4, len(sealed))]))
    ] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(StampError):  # a changed length may overrun
        assert not is_sealed(sequence, changed, AUTHENTICATOR)


@given(long, tlv_lists)
def test_a_reflected_seal_is_the_answers_own(sequence: int, tlvs: bytes) -> None:
    own = sequence ^ 1
    reflected, is_whole = reflect_tlvs(
        seal(sequence, tlvs, AUTHENTICATOR), (sequence, own), AUTHENTICATOR, lambda _k, _v: 0
    )
    assert is_whole
    assert is_sealed(own, reflected, AUTHENTICATOR)
    assert not is_sealed(sequence, reflected, AUTHENTICATOR)
