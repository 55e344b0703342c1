"""STAMP test packets: RFC 8762 section 4, with the SSID of RFC 8972 section 3.

It turns numbers into octets and back, and checks what can be checked without knowing a session:
length, error estimate, HMAC. Must-be-zero octets are sent as zero and not looked at.

A timestamp is two words of 32 bits: seconds, and a fraction in the format that the error estimate
beside it names. In our code it is integer nanoseconds since 1970. We send truncated PTPv2, which
holds exactly that. What is parsed comes as plain tuples: thousands of packets a second pass here,
and every instruction counts.
"""

import hmac
from struct import Struct
from typing import Final, NamedTuple

from appliance.stamp.errors import ForgedPacket, MalformedPacket

Octets = bytes | bytearray | memoryview

BASE_SIZE: Final = 44  # unauthenticated, both directions
AUTHENTICATED_SIZE: Final = 112
SHORTEST_SIZE: Final = 14  # a TWAMP Light sender may leave out everything after the error estimate
TAG_SIZE: Final = 16
COVERED_SIZE: Final = AUTHENTICATED_SIZE - TAG_SIZE  # what the HMAC is taken over
KEY_LEAST: Final = 16  # octets; shorter keys are refused

_SENDER = Struct(">IIIHH28x")
_SENDER_SHORT = Struct(">IIIH")
_SENDER_AUTHENTICATED = Struct(">I12xIIHH68x")
_REFLECTOR = Struct(">IIIHHIIIIIHxxB3x")
_REFLECTOR_AUTHENTICATED = Struct(">I12xIIHH4xII8xI12xIIH6xB15x")

SECOND: Final = 1_000_000_000  # nanoseconds
_LOW_32 = 0xFFFFFFFF
_NTP_TO_UNIX_S = 2_208_988_800  # 1900 to 1970
_ERA_S = 1 << 32

_SYNCHRONIZED = 0x8000  # S
PTP_FORMAT: Final = 0x4000  # Z (RFC 8186): the timestamps beside it are truncated PTPv2
_MULTIPLIER = 0x00FF


# Sequence number, timestamp (2 words), error estimate, SSID.
SenderFields = tuple[int, int, int, int, int]
# Sequence number, timestamp (2), its error estimate, SSID, receive timestamp (2); then of the
# probe: sequence number, timestamp (2), error estimate, TTL it arrived with.
ReflectorFields = tuple[int, int, int, int, int, int, int, int, int, int, int, int]


class Authenticator:
    """HMAC-SHA-256 truncated to 16 octets under one key (RFC 8762 section 4.4)."""

    __slots__ = ("_keyed",)

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_LEAST:
            msg = f"a STAMP key needs at least {KEY_LEAST} octets, not {len(key)}"
            raise ValueError(msg)
        # Keyed once and copied per packet: half the cost of starting from the key each time.
        self._keyed = hmac.new(key, digestmod="sha256")

    def tag(self, octets: Octets) -> bytes:
        mac = self._keyed.copy()
        mac.update(octets)
        return mac.digest()[:TAG_SIZE]

    def is_valid(self, octets: Octets, tag: Octets) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(self.tag(octets), tag)


def base_size(authenticator: Authenticator | None) -> int:
    """Octets of a packet before its TLVs."""
    return BASE_SIZE if authenticator is None else AUTHENTICATED_SIZE


def pack_sender(fields: SenderFields, authenticator: Authenticator | None = None) -> bytes:
    """A Session-Sender packet without TLVs, 44 or 112 octets."""
    if authenticator is None:
        return _SENDER.pack(*fields)
    octets = _SENDER_AUTHENTICATED.pack(*fields)
    return octets + authenticator.tag(octets)


def parse_sender(octets: Octets, authenticator: Authenticator | None = None) -> SenderFields:
    """Read a Session-Sender packet; what follows its base is not looked at.

    Without an authenticator a packet may be as short as a TWAMP Light sender makes it; its SSID is
    then 0. Raises MalformedPacket or ForgedPacket.
    """
    fields: SenderFields
    size = len(octets)
    if authenticator is not None:
        _check_tag(octets, size, authenticator)
        fields = _SENDER_AUTHENTICATED.unpack_from(octets)
    elif size >= BASE_SIZE:
        fields = _SENDER.unpack_from(octets)
    elif size >= SHORTEST_SIZE:
        fields = (*_SENDER_SHORT.unpack_from(octets), 0)
    else:
        raise _too_short(size, SHORTEST_SIZE)
    if not fields[3] & _MULTIPLIER:
        raise _no_multiplier()
    return fields


def pack_reflector(fields: ReflectorFields, authenticator: Authenticator | None = None) -> bytes:
    """A Session-Reflector packet without TLVs, 44 or 112 octets."""
    if authenticator is None:
        return _REFLECTOR.pack(*fields)
    octets = _REFLECTOR_AUTHENTICATED.pack(*fields)
    return octets + authenticator.tag(octets)


def parse_reflector(octets: Octets, authenticator: Authenticator | None = None) -> ReflectorFields:
    """Read a Session-Reflector packet; what follows its base is not looked at.

    Raises MalformedPacket or ForgedPacket.
    """
    fields: ReflectorFields
    size = len(octets)
    if authenticator is not None:
        _check_tag(octets, size, authenticator)
        fields = _REFLECTOR_AUTHENTICATED.unpack_from(octets)
    elif size >= BASE_SIZE:
        fields = _REFLECTOR.unpack_from(octets)
    else:
        raise _too_short(size, BASE_SIZE)
    if not fields[3] & _MULTIPLIER:
        raise _no_multiplier()
    return fields


def _check_tag(octets: Octets, size: int, authenticator: Authenticator) -> None:
    if size < AUTHENTICATED_SIZE:
        raise _too_short(size, AUTHENTICATED_SIZE)
    if not authenticator.is_valid(octets[:COVERED_SIZE], octets[COVERED_SIZE:AUTHENTICATED_SIZE]):
        msg = "the HMAC does not fit the packet and the key"
        raise ForgedPacket(msg)


def _too_short(size: int, least: int) -> MalformedPacket:
    return MalformedPacket(f"{size} octets, of at least {least}")


def _no_multiplier() -> MalformedPacket:
    # "Corrupt and to be discarded": RFC 4656 section 4.1.2.
    return MalformedPacket("the error estimate has a multiplier of zero")


def split_ptp(time_ns: int) -> tuple[int, int]:
    """Truncated PTPv2 (RFC 8186): seconds since 1970, nanoseconds."""
    seconds = time_ns // SECOND
    return seconds & _LOW_32, time_ns - seconds * SECOND


def join_ptp(seconds: int, fraction: int) -> int:
    return seconds * SECOND + fraction


def split_ntp(time_ns: int) -> tuple[int, int]:
    """NTP (RFC 5905 section 6): seconds since 1900, 2^-32 of a second."""
    seconds = time_ns // SECOND
    return seconds + _NTP_TO_UNIX_S & _LOW_32, (time_ns - seconds * SECOND << 32) // SECOND


def join_ntp(seconds: int, fraction: int) -> int:
    """To the nearest nanosecond. Seconds below 2^31 are of the era that starts in 2036."""
    if seconds < _ERA_S >> 1:
        seconds += _ERA_S
    return (seconds - _NTP_TO_UNIX_S) * SECOND + (fraction * SECOND + (_ERA_S >> 1) >> 32)


class ErrorEstimate(NamedTuple):
    """How far a clock may be off (RFC 4656 section 4.1.2), and its format (RFC 8186)."""

    is_synchronized: bool  # to UTC, by an external source
    is_ptp: bool
    error_ns: int


def encode_error_estimate(estimate: ErrorEstimate) -> int:
    """Multiplier * 2^(Scale - 32) s that is at least `error_ns`. Raises ValueError over 2^39 s."""
    units = max(1, -(-(estimate.error_ns << 32) // SECOND))  # of 2^-32 s, rounded up
    scale = max(0, units.bit_length() - 8)
    multiplier = -(-units >> scale)
    if multiplier > _MULTIPLIER:
        scale, multiplier = scale + 1, (multiplier + 1) // 2
    if scale > 63:
        msg = f"an error of {estimate.error_ns} ns does not fit"
        raise ValueError(msg)
    flags = _SYNCHRONIZED * estimate.is_synchronized | PTP_FORMAT * estimate.is_ptp
    return flags | scale << 8 | multiplier


def decode_error_estimate(value: int) -> ErrorEstimate:
    """`error_ns` is rounded up."""
    units = (value & _MULTIPLIER) << (value >> 8 & 0x3F)
    return ErrorEstimate(
        is_synchronized=bool(value & _SYNCHRONIZED),
        is_ptp=bool(value & PTP_FORMAT),
        error_ns=-(-units * SECOND >> 32),
    )
