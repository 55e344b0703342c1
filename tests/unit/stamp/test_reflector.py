from collections.abc import Hashable

import pytest

from appliance.stamp.packet import (
    AUTHENTICATED_SIZE,
    BASE_SIZE,
    PTP_FORMAT,
    Authenticator,
    join_ntp,
    join_ptp,
    pack_sender,
    parse_reflector,
    split_ntp,
    split_ptp,
)
from appliance.stamp.reflector import SessionReflector, Source
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
    is_sealed,
    iterate,
    seal,
)

NOW = 1_700_000_000_123_456_789
MS = 1_000_000
SECOND = 1_000 * MS
KEY = bytes(range(32))
SOURCE: Source = b"plane 11, site 1"
SSID = 0x11


def probe(sequence: int = 0, *, at: int = NOW, ssid: int = SSID, tlvs: bytes = b"") -> bytes:
    return pack_sender((sequence, *split_ptp(at), 0x4BD2, ssid)) + tlvs


def authenticated(sequence: int, tlvs: bytes) -> bytes:
    return pack_sender((sequence, *split_ptp(NOW), 0x4BD2, SSID), Authenticator(KEY)) + tlvs


def answers(reflector: SessionReflector, packet: bytes, at: int = NOW, **how: int) -> bytes:
    answer = reflector.reflect(packet, SOURCE, at, at + MS, 64, **how)
    assert answer is not None
    return answer


def number(reflector: SessionReflector, packet: bytes, at: int = NOW) -> int:
    return parse_reflector(answers(reflector, packet, at))[0]


# -- what an answer says --------------------------------------------------------------------------


def test_an_answer_tells_its_times_and_repeats_the_probe() -> None:
    reflector = SessionReflector()
    answer = reflector.reflect(probe(7), SOURCE, NOW + 20 * MS, NOW + 21 * MS, 63)
    assert answer is not None
    assert len(answer) == BASE_SIZE
    own, t3_s, t3_f, estimate, ssid, t2_s, t2_f, sequence, t1_s, t1_f, sent, ttl = parse_reflector(
        answer
    )
    assert (own, ssid, sequence, sent, ttl) == (0, SSID, 7, 0x4BD2, 63)
    assert estimate & PTP_FORMAT
    assert join_ptp(t2_s, t2_f) == NOW + 20 * MS
    assert join_ptp(t3_s, t3_f) == NOW + 21 * MS
    assert join_ptp(t1_s, t1_f) == NOW


def test_a_sender_that_writes_ntp_is_answered_in_ntp() -> None:
    packet = pack_sender((1, *split_ntp(NOW), 0x0BD2, SSID))
    _, t3_s, t3_f, estimate, _, t2_s, t2_f, *_ = parse_reflector(
        answers(SessionReflector(), packet)
    )
    assert not estimate & PTP_FORMAT
    assert (join_ntp(t2_s, t2_f), join_ntp(t3_s, t3_f)) == (NOW, NOW + MS)


def test_answers_have_their_own_numbers_per_session() -> None:
    reflector = SessionReflector()
    assert [number(reflector, probe(sequence)) for sequence in (3, 5, 4, 9)] == [0, 1, 2, 3]
    assert number(reflector, probe(10, ssid=0x12)) == 0
    other = reflector.reflect(probe(10), b"another port", NOW, NOW, 64)
    assert other is not None
    assert parse_reflector(other)[0] == 0
    assert number(reflector, probe(10)) == 4


@pytest.mark.parametrize("size", [14, 15, 41, 43])
def test_a_short_twamp_light_probe_gets_an_answer_of_its_length(size: int) -> None:
    reflector = SessionReflector()
    whole = answers(reflector, probe(3))
    short = answers(reflector, probe(3)[:size])
    assert len(short) == size
    assert short[4:14] == whole[4:14]


@pytest.mark.parametrize("size", [45, 60, 200, 1400])
def test_an_answer_is_as_long_as_the_probe(size: int) -> None:
    assert len(answers(SessionReflector(), probe().ljust(size, b"\x01"))) == size
    assert len(answers(SessionReflector(key=KEY), authenticated(0, bytes(size)))) == 112 + size


# -- what gets no answer --------------------------------------------------------------------------


def test_malformed_packets_are_dropped_and_counted() -> None:
    reflector = SessionReflector()
    for packet in (b"", bytes(13), bytes(44)):  # the last: multiplier 0
        assert reflector.reflect(packet, SOURCE, NOW, NOW, 64) is None
    assert reflector.counters.malformed == 3
    assert len(reflector) == 0


def test_only_authenticated_packets_are_answered_when_there_is_a_key() -> None:
    reflector = SessionReflector(key=KEY)
    fields = (7, *split_ptp(NOW), 0x4BD2, SSID)
    answer = answers(reflector, pack_sender(fields, Authenticator(KEY)))
    assert parse_reflector(answer, Authenticator(KEY))[7] == 7
    forged = pack_sender(fields, Authenticator(KEY[::-1]))
    assert reflector.reflect(forged, SOURCE, NOW, NOW, 64) is None
    assert reflector.reflect(pack_sender(fields), SOURCE, NOW, NOW, 64) is None
    assert (reflector.counters.forged, reflector.counters.malformed) == (1, 1)
    assert reflector.received(SOURCE, SSID) == PathReport(SSID, 1, 7)


def test_sessions_are_bounded_and_the_longest_silent_one_goes() -> None:
    reflector = SessionReflector(max_sessions=3)
    for ssid in (1, 2, 3):
        number(reflector, probe(ssid=ssid))
    assert number(reflector, probe(1, ssid=1)) == 1  # so 2 is the oldest
    assert number(reflector, probe(ssid=4)) == 0
    assert len(reflector) == 3
    assert reflector.counters.evicted == 1
    assert reflector.received(SOURCE, 2) is None
    assert number(reflector, probe(2, ssid=1)) == 2
    assert number(reflector, probe(1, ssid=2)) == 0  # forgotten


def test_a_session_that_came_back_from_another_port_is_not_forgotten_with_the_old_one() -> None:
    reflector = SessionReflector(max_sessions=2, peer_of=lambda source: source[:6])
    assert reflector.reflect(probe(), b"site 1, port 1", NOW, NOW, 64) is not None
    assert reflector.reflect(probe(), b"site 1, port 2", NOW, NOW, 64) is not None
    assert reflector.reflect(probe(ssid=9), b"site 9, port 3", NOW, NOW, 64) is not None
    assert reflector.received(b"site 1", SSID) == PathReport(SSID, 1, 0)


def count_answers(reflector: SessionReflector, packets: int, gap_ns: int, ssid: int = SSID) -> int:
    found = 0
    for i in range(packets):
        at = NOW + i * gap_ns
        found += reflector.reflect(probe(i, ssid=ssid), SOURCE, at, at, 64) is not None
    return found


def test_a_session_gets_its_burst_and_then_its_rate() -> None:
    reflector = SessionReflector(session_rate=100, session_burst=20)
    assert count_answers(reflector, 1000, MS) == 20 + 99  # in 999 ms, the first without waiting
    assert reflector.counters.limited == 1000 - 119
    # What was not answered has no number: to the sender it is lost on the way forth.
    assert reflector.received(SOURCE, SSID) == PathReport(SSID, 119, 990)


def test_a_session_at_its_rate_is_always_answered() -> None:
    reflector = SessionReflector(session_rate=100, session_burst=1)
    assert count_answers(reflector, 500, 10 * MS) == 500


def test_the_burst_is_back_after_silence() -> None:
    reflector = SessionReflector(session_rate=10, session_burst=5)
    assert count_answers(reflector, 10, 0) == 5
    later = NOW + 10 * SECOND
    found = [reflector.reflect(probe(i), SOURCE, later, later, 64) for i in range(10)]
    assert sum(answer is not None for answer in found) == 5


def test_all_sessions_together_are_limited() -> None:
    reflector = SessionReflector(total_rate=100, total_burst=10)
    found = sum(count_answers(reflector, 4, 0, ssid=ssid) for ssid in range(1, 10))
    assert found == 10
    assert reflector.counters.limited == 36 - 10
    assert len(reflector) == 3  # nothing is remembered of what is not answered


def test_a_session_over_its_rate_takes_nothing_from_the_others() -> None:
    reflector = SessionReflector(session_rate=1, session_burst=1, total_rate=10, total_burst=10)
    assert count_answers(reflector, 100, 0) == 1
    assert sum(count_answers(reflector, 1, 0, ssid=ssid) for ssid in range(100, 109)) == 9


@pytest.mark.parametrize(
    "bound", ["max_sessions", "session_rate", "session_burst", "total_rate", "total_burst"]
)
def test_bounds_are_positive(bound: str) -> None:
    with pytest.raises(ValueError, match="bounds"):
        SessionReflector(**{bound: 0})  # type: ignore[arg-type]


# -- what is remembered ---------------------------------------------------------------------------


def test_stragglers_do_not_lower_the_highest_number() -> None:
    reflector = SessionReflector()
    for sequence in (5, 9, 7):
        number(reflector, probe(sequence))
    assert reflector.received(SOURCE, SSID) == PathReport(SSID, 3, 9)
    assert reflector.received(SOURCE, 0x99) is None


def test_numbers_go_on_past_two_to_the_32() -> None:
    reflector = SessionReflector()
    for sequence in (0xFFFFFFFE, 0xFFFFFFFF, 0, 1):
        number(reflector, probe(sequence))
    assert reflector.received(SOURCE, SSID) == PathReport(SSID, 4, 1)


def test_a_sender_that_starts_anew_starts_a_session() -> None:
    reflector = SessionReflector()
    for sequence in (5, 6, 7):
        number(reflector, probe(sequence))
    assert number(reflector, probe(0, at=NOW + 2 * SECOND)) == 0
    assert reflector.received(SOURCE, SSID) == PathReport(SSID, 1, 0)
    for sequence in (5000, 5001):
        number(reflector, probe(sequence, at=NOW + 3 * SECOND))
    assert number(reflector, probe(3, at=NOW + 5 * SECOND)) == 0  # its 0, 1 and 2 were lost


def test_a_replayed_packet_is_answered_but_resets_nothing() -> None:
    reflector = SessionReflector()
    first = probe(0)
    for i in range(3000):
        number(reflector, probe(i, at=NOW + i * 20 * MS), NOW + i * 20 * MS)
    assert number(reflector, first, NOW + 60 * SECOND) == 3000
    assert reflector.received(SOURCE, SSID) == PathReport(SSID, 3001, 2999)


# -- TLVs -----------------------------------------------------------------------------------------


def only_tlv(octets: bytes) -> tuple[int, bytes]:
    (tlv,) = iterate(octets[BASE_SIZE:])
    return tlv.flags, bytes(tlv.value)


def test_unknown_tlvs_come_back_with_u_set() -> None:
    packet = probe(tlvs=bytes.fromhex("80630003aabbcc") + encode_padding(5))
    found = list(iterate(answers(SessionReflector(), packet)[BASE_SIZE:]))
    assert [(tlv.flags, tlv.type) for tlv in found] == [(UNRECOGNIZED, 0x63), (0, 1)]
    assert found[0].value == bytes.fromhex("aabbcc")


@pytest.mark.parametrize("kind", [Type.CLASS_OF_SERVICE, Type.DIRECT_MEASUREMENT, Type.PATH_REPORT])
def test_tlvs_of_the_wrong_length_come_back_with_m_set(kind: Type) -> None:
    reflector = SessionReflector(counters_of=lambda _source, _ssid: (1, 2))
    assert only_tlv(answers(reflector, probe(tlvs=encode(kind, b"abcde")))) == (MALFORMED, b"abcde")


def test_class_of_service_tells_the_marks_that_arrived() -> None:
    packet = probe(tlvs=encode_class_of_service(46))
    flags, value = only_tlv(answers(SessionReflector(), packet, traffic_class=0x23))
    assert flags == 0
    assert decode_class_of_service(value) == ClassOfService(46, 8, 3, is_refused=True)
    assert value == bytes([0b101110_00, 0b1000_11_01, 0, 0])  # RP, of two bits, is 1
    _, value = only_tlv(answers(SessionReflector(dscp=46), packet, traffic_class=0xB8))
    assert decode_class_of_service(value) == ClassOfService(46, 46, 0, is_refused=False)


def test_a_mark_that_answers_do_not_carry_is_refused_whatever_arrived() -> None:
    packet = probe(tlvs=encode_class_of_service(46))
    _, value = only_tlv(answers(SessionReflector(dscp=48), packet, traffic_class=46 << 2))
    assert decode_class_of_service(value) == ClassOfService(46, 46, 0, is_refused=True)


def test_direct_measurement_is_filled_from_the_counters_of_the_session() -> None:
    asked: list[tuple[Source, int]] = []

    def counters_of(source: Source, ssid: int) -> tuple[int, int] | None:
        asked.append((source, ssid))
        return (1 << 32 | 5, 6)

    reflector = SessionReflector(counters_of=counters_of)
    flags, value = only_tlv(answers(reflector, probe(tlvs=encode_direct_measurement(4))))
    assert flags == 0
    assert decode_direct_measurement(value) == DirectMeasurement(4, 5, 6)
    assert asked == [(SOURCE, SSID)]


def test_without_counters_direct_measurement_is_not_recognized() -> None:
    packet = probe(tlvs=encode_direct_measurement(4))
    unknown = SessionReflector(counters_of=lambda _source, _ssid: None)
    for reflector in (SessionReflector(), unknown):
        assert only_tlv(answers(reflector, packet))[0] == UNRECOGNIZED


def test_a_path_report_speaks_of_the_same_peer_over_other_planes() -> None:
    def site_of(source: Source) -> Hashable:
        return source[-1]

    reflector = SessionReflector(peer_of=site_of)
    for sequence in range(5):
        packet = probe(sequence, ssid=0x12)
        reflector.reflect(packet, b"plane 12, site 1", NOW, NOW, 64)
    reflector.reflect(probe(77, ssid=0x12), b"plane 12, site 2", NOW, NOW, 64)
    request = encode_path_report([0x12, SSID, 0x99])
    flags, value = only_tlv(answers(reflector, probe(tlvs=request)))
    assert flags == 0
    assert decode_path_report(value) == (
        PathReport(0x12, 5, 4),
        PathReport(SSID, 1, 0),  # this very packet is counted
        PathReport(0x99),
    )
    assert reflector.received(ord("2"), 0x12) == PathReport(0x12, 1, 77)


def test_an_hmac_tlv_without_a_key_is_not_recognized() -> None:
    packet = probe(tlvs=encode(Type.HMAC, bytes(16)))
    assert only_tlv(answers(SessionReflector(), packet)) == (UNRECOGNIZED, bytes(16))


def test_sealed_tlvs_are_filled_and_sealed_again() -> None:
    reflector = SessionReflector(key=KEY, counters_of=lambda _source, _ssid: (5, 6))
    answers(reflector, authenticated(8, b""))
    tlvs = seal(9, encode_direct_measurement(4), Authenticator(KEY)) + encode_padding(20)
    reflected = answers(reflector, authenticated(9, tlvs))[AUTHENTICATED_SIZE:]
    assert [tlv.flags for tlv in iterate(reflected)] == [0, 0, 0]
    assert decode_direct_measurement(next(iterate(reflected)).value) == DirectMeasurement(4, 5, 6)
    assert is_sealed(1, reflected, Authenticator(KEY))  # over the answer's own number
    assert reflector.counters.unsealed == 0


@pytest.mark.parametrize(
    "tlvs",
    [
        encode_direct_measurement(4),
        seal(10, encode_direct_measurement(4), Authenticator(KEY)),
        seal(9, b"", Authenticator(KEY)) + encode_direct_measurement(4),
    ],
    ids=["no seal", "another packet's seal", "after the seal"],
)
def test_tlvs_without_a_valid_seal_are_answered_with_i_set_and_not_filled(tlvs: bytes) -> None:
    reflector = SessionReflector(key=KEY, counters_of=lambda _source, _ssid: (5, 6))
    answer = answers(reflector, authenticated(9, tlvs))
    assert parse_reflector(answer, Authenticator(KEY))[7] == 9  # the base is good all the same
    reflected = list(iterate(answer[AUTHENTICATED_SIZE:]))
    assert [tlv.flags for tlv in reflected] == [INTEGRITY] * len(reflected)
    assert [tlv.value for tlv in reflected] == [tlv.value for tlv in iterate(tlvs)]
    assert reflector.counters.unsealed == 1
