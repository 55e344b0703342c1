"""STAMP packets from outside: accepted, or a StampError. A reflector raises nothing at all."""

import contextlib

from appliance.stamp.errors import StampError
from appliance.stamp.packet import (
    AUTHENTICATED_SIZE,
    BASE_SIZE,
    COVERED_SIZE,
    Authenticator,
    pack_sender,
    parse_reflector,
    parse_sender,
    split_ntp,
)
from appliance.stamp.reflector import SessionReflector
from appliance.stamp.sender import SessionSender
from appliance.stamp.tlv import (
    decode_class_of_service,
    decode_direct_measurement,
    decode_path_report,
    encode_class_of_service,
    encode_direct_measurement,
    encode_padding,
    encode_path_report,
    is_sealed,
    iterate,
)
from tests.fuzz.harness import Target

KEY = bytes(range(32))
AUTHENTICATOR = Authenticator(KEY)
SOURCE = b"[2001:db8::1]:40000"
SSID = 0x11
NOW = 1_700_000_000_123_456_789
TLVS = (
    encode_class_of_service(46)
    + encode_direct_measurement(7)
    + encode_path_report([SSID, 0x12])
    + encode_padding(9)
)


def reflector(key: bytes | None) -> SessionReflector:
    return SessionReflector(key=key, max_sessions=4, counters_of=lambda _source, _ssid: (1, 2))


def retagged(octets: bytes) -> bytes:
    """The same with a valid HMAC in its base, so that what lies behind the check is reached."""
    covered = octets[:COVERED_SIZE]
    return covered + AUTHENTICATOR.tag(covered) + octets[AUTHENTICATED_SIZE:]


def fuzz_probe(octets: bytes) -> None:
    for data, authenticator in (
        (octets, None),
        (octets, AUTHENTICATOR),
        (retagged(octets), AUTHENTICATOR),
    ):
        with contextlib.suppress(StampError):
            parse_sender(data, authenticator)


def fuzz_answer(octets: bytes) -> None:
    for data, authenticator in (
        (octets, None),
        (octets, AUTHENTICATOR),
        (retagged(octets), AUTHENTICATOR),
    ):
        with contextlib.suppress(StampError):
            parse_reflector(data, authenticator)


def fuzz_tlvs(octets: bytes) -> None:
    with contextlib.suppress(StampError):
        is_sealed(7, octets, AUTHENTICATOR)
    with contextlib.suppress(StampError):
        for tlv in iterate(octets):
            for decode in (decode_class_of_service, decode_direct_measurement, decode_path_report):
                with contextlib.suppress(StampError):
                    decode(tlv.value)


def state_of(session: SessionSender) -> dict[str, str]:
    """All that a session remembers, but for its counters."""
    interval = session._interval
    found = {name: repr(getattr(interval, name)) for name in interval.__slots__}
    names = set(session.__slots__) - {"counters", "_authenticator", "_interval"}
    return found | {name: repr(getattr(session, name)) for name in names}


def fuzz_session(octets: bytes) -> None:
    """A session that has one answer, gave one probe up and awaits one: errors change nothing."""
    for key, data in ((None, octets), (KEY, octets), (KEY, retagged(octets))):
        session, far_end = SessionSender(SSID, key=key), reflector(key)
        answer = far_end.reflect(session.probe(NOW), SOURCE, NOW, NOW, 64)
        if answer is None:
            raise AssertionError
        session.receive(answer, NOW)
        session.probe(NOW)
        session.handle_timer(NOW + 10**10)
        session.probe(NOW)
        before = state_of(session)
        try:
            session.receive(data, NOW + 1)
        except StampError:
            if state_of(session) != before:
                raise AssertionError from None
        session.take_sample(NOW + 2)


def fuzz_reflector(octets: bytes) -> None:
    """No error at all, and an answer of the length of the probe or none."""
    for key, data in ((None, octets), (KEY, octets), (KEY, retagged(octets))):
        answer = reflector(key).reflect(data, SOURCE, NOW, NOW, 64, traffic_class=0xB8)
        if answer is not None and len(answer) != len(data):
            raise AssertionError


def _probes() -> tuple[bytes, ...]:
    plain, sealed = SessionSender(SSID), SessionSender(SSID, key=KEY)
    ntp = pack_sender((1, *split_ntp(NOW), 0x0BD2, SSID))
    return (
        *(plain.probe(NOW), plain.probe(NOW, tlvs=TLVS), plain.probe(NOW, pad_to=200)),
        *(sealed.probe(NOW), sealed.probe(NOW, tlvs=TLVS, pad_to=300)),
        *(ntp, ntp[:14], ntp[:41]),
    )


def _answers() -> tuple[bytes, ...]:
    probes = _probes()
    found = []
    for probe in probes:
        for key in (None, KEY):
            answer = reflector(key).reflect(probe, SOURCE, NOW, NOW, 64)
            if answer is not None and len(answer) >= BASE_SIZE:
                found.append(answer)
    return tuple(found)


TARGETS = (
    Target("stamp-probe", fuzz_probe, _probes()),
    Target("stamp-answer", fuzz_answer, _answers()),
    Target("stamp-tlvs", fuzz_tlvs, (TLVS, encode_padding(4))),
    Target("stamp-session", fuzz_session, _answers()),
    Target("stamp-reflector", fuzz_reflector, _probes()),
)
