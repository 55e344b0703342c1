"""STAMP extensions: the TLVs after a test packet's base (RFC 8972 section 4).

It knows their framing and the values that we use: Extra Padding, Class of Service, Direct
Measurement, HMAC, and a private one of ours, the Path Report. What a reflector does with them is
in `reflector`. Octets from outside raise MalformedPacket and nothing else.
"""

from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

from appliance.stamp.errors import MalformedPacket
from appliance.stamp.packet import Authenticator, Octets

# Flags. A sender sets U, so that a reflector that merely copies the TLV is seen not to know it.
UNRECOGNIZED: Final = 0x80  # U
MALFORMED: Final = 0x40  # M
INTEGRITY: Final = 0x20  # I: the HMAC TLV is missing or wrong

HEADER: Final = Struct(">BBH")  # flags, type, length of the value
CLASS_OF_SERVICE: Final = Struct(">HH")
DIRECT_MEASUREMENT: Final = Struct(">III")
PATH_REPORT: Final = Struct(">HxxII")
COUNT_MODULUS: Final = 1 << 32  # of the counters in a Direct Measurement
_SEQUENCE = Struct(">I")


class Type(IntEnum):
    """Types that we understand. RFC 8972 section 5.1; 252 to 254 are for private use."""

    EXTRA_PADDING = 1
    CLASS_OF_SERVICE = 4
    DIRECT_MEASUREMENT = 5
    HMAC = 8
    PATH_REPORT = 252


class Tlv(NamedTuple):
    """One TLV as it came. `offset` is where its header starts."""

    offset: int
    flags: int
    type: int
    value: Octets


def iterate(tlvs: Octets) -> Iterator[Tlv]:
    """All TLVs in order. Raises MalformedPacket where one overruns the end."""
    offset, end = 0, len(tlvs)
    while offset < end:
        start = offset + HEADER.size
        if start > end:
            msg = f"{end - offset} octets are no TLV header"
            raise MalformedPacket(msg)
        flags, kind, length = HEADER.unpack_from(tlvs, offset)
        if start + length > end:
            msg = f"a TLV of type {kind} has {end - start} of its {length} octets"
            raise MalformedPacket(msg)
        yield Tlv(offset, flags, kind, tlvs[start : start + length])
        offset = start + length


def find(tlvs: Octets, kind: Type) -> Octets | None:
    """The value of the first TLV of a type that the far end understood and answered, or None."""
    for tlv in iterate(tlvs):
        if tlv.type == kind and not tlv.flags & (UNRECOGNIZED | MALFORMED | INTEGRITY):
            return tlv.value
    return None


def is_refused(tlvs: Octets, kind: Type) -> bool:
    """Did the far end leave a TLV of this type unanswered?"""
    return any(tlv.type == kind and tlv.flags & UNRECOGNIZED for tlv in iterate(tlvs))


def encode(kind: Type, value: Octets) -> bytes:
    """A TLV as a sender sends it. Raises ValueError for a value over 65535 octets."""
    if len(value) > 0xFFFF:
        msg = f"a value of {len(value)} octets"
        raise ValueError(msg)
    return HEADER.pack(UNRECOGNIZED, kind, len(value)) + value


def encode_padding(size: int) -> bytes:
    """An Extra Padding TLV of `size` octets in all, at least 4 (section 4.1)."""
    if size < HEADER.size:
        msg = f"an Extra Padding TLV has at least {HEADER.size} octets, not {size}"
        raise ValueError(msg)
    return encode(Type.EXTRA_PADDING, bytes(size - HEADER.size))


class ClassOfService(NamedTuple):
    """How marks fare on the way (section 4.4)."""

    wanted_dscp: int  # DSCP1: what the answer should carry
    received_dscp: int = 0  # DSCP2: what the probe arrived with
    received_ecn: int = 0
    is_refused: bool = False  # RP: the answer does not carry what was wanted


def encode_class_of_service(wanted_dscp: int) -> bytes:
    if not 0 <= wanted_dscp < 64:
        msg = f"{wanted_dscp} is no DSCP"
        raise ValueError(msg)
    return encode(Type.CLASS_OF_SERVICE, CLASS_OF_SERVICE.pack(wanted_dscp << 10, 0))


def decode_class_of_service(value: Octets) -> ClassOfService:
    _check_length(value, CLASS_OF_SERVICE.size)
    bits, _ = CLASS_OF_SERVICE.unpack(value)
    return ClassOfService(bits >> 10, bits >> 4 & 0x3F, bits >> 2 & 3, bool(bits & 3))


class DirectMeasurement(NamedTuple):
    """Packets of real traffic counted at both ends, modulo 2^32 (section 4.5)."""

    sent: int  # S_TxC: by the Session-Sender's side when it sent the probe
    received: int = 0  # R_RxC: by the reflector's side when the probe arrived
    reflected: int = 0  # R_TxC: sent by the reflector's side when it answered


def encode_direct_measurement(sent: int) -> bytes:
    """Tell how many packets were sent, ask for the far end's counters."""
    return encode(Type.DIRECT_MEASUREMENT, DIRECT_MEASUREMENT.pack(sent % COUNT_MODULUS, 0, 0))


def decode_direct_measurement(value: Octets) -> DirectMeasurement:
    _check_length(value, DIRECT_MEASUREMENT.size)
    return DirectMeasurement._make(DIRECT_MEASUREMENT.unpack(value))


class PathReport(NamedTuple):
    """What a reflector received in another session of the same sender.

    The private TLV 252 holds any number of entries of 12 octets: SSID u16, 2 octets MBZ, count
    u32, highest sequence number u32. The sender fills in the SSIDs, the reflector the rest; an
    SSID that it never heard of keeps zeros.
    """

    ssid: int
    received: int = 0  # packets answered, which is also the reflector's next sequence number
    highest: int = 0  # the newest sequence number seen


def encode_path_report(ssids: Iterable[int]) -> bytes:
    """Ask what arrived in the sessions with these SSIDs."""
    return encode(Type.PATH_REPORT, b"".join([PATH_REPORT.pack(ssid, 0, 0) for ssid in ssids]))


def decode_path_report(value: Octets) -> tuple[PathReport, ...]:
    if len(value) % PATH_REPORT.size:
        msg = f"a Path Report of {len(value)} octets"
        raise MalformedPacket(msg)
    return tuple(PathReport._make(entry) for entry in PATH_REPORT.iter_unpack(value))


def _check_length(value: Octets, length: int) -> None:
    if len(value) != length:
        msg = f"a value of {len(value)} octets instead of {length}"
        raise MalformedPacket(msg)


def seal(sequence: int, tlvs: bytes, authenticator: Authenticator) -> bytes:
    """Append the HMAC TLV, over the sequence number and all TLVs before it (section 4.8)."""
    return tlvs + encode(Type.HMAC, authenticator.tag(_SEQUENCE.pack(sequence) + tlvs))


def is_sealed(sequence: int, tlvs: Octets, authenticator: Authenticator) -> bool:
    """Is every TLV covered by a valid HMAC TLV? Extra Padding may follow it and needs none.

    Raises MalformedPacket where a TLV overruns the end.
    """
    is_covered = is_needed = False
    for tlv in iterate(tlvs):
        if tlv.type == Type.EXTRA_PADDING:
            continue
        if is_covered:
            return False  # nothing but padding may follow the HMAC TLV
        is_needed = True
        if tlv.type == Type.HMAC:
            covered = _SEQUENCE.pack(sequence) + tlvs[: tlv.offset]
            if not authenticator.is_valid(covered, tlv.value):
                return False
            is_covered = True
    return is_covered or not is_needed


def reflect_tlvs(
    tlvs: bytes,
    sequences: tuple[int, int],
    authenticator: Authenticator | None,
    fill: Callable[[int, memoryview], int],
) -> tuple[bytes, bool]:
    """The TLVs of an answer: the same, of the same length, filled in and flagged (section 4).

    `sequences` are the probe's number and the answer's. `fill(type, value)` fills a value in place
    and gives its flags. It is not called when the integrity check failed: then every TLV comes
    back as it was with I set, and the second result is False.
    """
    asked, own = sequences
    is_whole = True
    if authenticator is not None:
        try:
            is_whole = is_sealed(asked, tlvs, authenticator)
        except MalformedPacket:
            is_whole = False
    answer = bytearray(tlvs)
    offset, end = 0, len(answer)
    while offset < end:
        start = offset + HEADER.size
        kind = length = end
        if start <= end:
            _, kind, length = HEADER.unpack_from(answer, offset)
        if start + length > end:  # where the next TLV starts is unknown: copied as it is
            answer[offset] = MALFORMED | (0 if is_whole else INTEGRITY)
            break
        value = memoryview(answer)[start : start + length]
        if not is_whole:
            answer[offset] = INTEGRITY
        elif kind == Type.HMAC and authenticator is not None:
            answer[offset] = 0
            value[:] = authenticator.tag(_SEQUENCE.pack(own) + answer[:offset])
        else:
            answer[offset] = fill(kind, value)
        offset = start + length
    return bytes(answer), is_whole
