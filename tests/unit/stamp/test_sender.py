import pytest

from appliance.stamp.errors import ForgedPacket, MalformedPacket, UnexpectedAnswer
from appliance.stamp.packet import (
    Authenticator,
    pack_reflector,
    parse_reflector,
    parse_sender,
    split_ntp,
    split_ptp,
)
from appliance.stamp.reflector import SessionReflector
from appliance.stamp.sender import Answer, SessionSender
from appliance.stamp.tlv import (
    PathReport,
    Type,
    decode_path_report,
    encode_direct_measurement,
    encode_path_report,
    find,
    is_sealed,
    iterate,
)

NOW = 1_700_000_000_123_456_789
US = 1_000
MS = 1_000_000
SSID = 0x11
KEY = bytes(range(32))
SOURCE = b"[2001:db8::1]:40000"


class Path:
    """A session, its reflector and the two ways between them, with a clock of its own there."""

    def __init__(self, *, key: bytes | None = None, offset_ns: int = 0, **how: int) -> None:
        self.sender = SessionSender(SSID, key=key, **how)
        self.reflector = SessionReflector(key=key)
        self.offset_ns = offset_ns
        self.now = NOW
        self.forth_ns = self.back_ns = 10 * MS

    def probe(self, at: int | None = None, tlvs: bytes = b"") -> bytes:
        self.now = self.now if at is None else at
        return self.sender.probe(self.now, tlvs=tlvs)

    def reflect(self, probe: bytes, sent: int | None = None, dwell_ns: int = 0) -> bytes:
        at = (self.now if sent is None else sent) + self.forth_ns + self.offset_ns
        answer = self.reflector.reflect(probe, SOURCE, at, at + dwell_ns, 64)
        assert answer is not None
        return answer

    def ask(self, dwell_ns: int = 0) -> Answer:
        """One probe there and back."""
        answer = self.reflect(self.probe(), dwell_ns=dwell_ns)
        return self.receive(answer, dwell_ns)

    def receive(self, answer: bytes, dwell_ns: int = 0) -> Answer:
        return self.sender.receive(answer, self.now + self.forth_ns + dwell_ns + self.back_ns)

    def settle(self, probes: int = 50) -> None:
        """Answered probes, 20 ms apart, until the deviation has gone; then no sample is due."""
        for _ in range(probes):
            self.ask()
            self.now += 20 * MS
        self.sender.take_sample(self.now)


# -- probes ---------------------------------------------------------------------------------------


def test_probes_are_numbered_and_stamped() -> None:
    sender = SessionSender(SSID)
    for sequence in range(3):
        at = NOW + sequence * MS
        assert parse_sender(sender.probe(at))[:3] == (sequence, *split_ptp(at))
    assert sender.next_sequence == 3
    assert parse_sender(sender.probe(NOW))[4] == SSID


def test_probes_grow_by_tlvs_and_padding() -> None:
    sender = SessionSender(SSID)
    tlvs = encode_direct_measurement(5)
    assert sender.probe(NOW, tlvs=tlvs)[44:] == tlvs
    assert len(sender.probe(NOW, tlvs=tlvs, pad_to=1400)) == 1400
    assert len(sender.probe(NOW, pad_to=48)) == 48
    assert len(sender.probe(NOW, pad_to=44)) == 44
    for size in (0, 43, 45, 47):
        with pytest.raises(ValueError, match="Extra Padding"):
            sender.probe(NOW, pad_to=size)
    assert sender.next_sequence == 4  # no number was used for what could not be made


def test_tlvs_are_sealed_and_padding_follows_the_seal() -> None:
    sender = SessionSender(SSID, key=KEY)
    packet = sender.probe(NOW, tlvs=encode_direct_measurement(5), pad_to=300)
    assert parse_sender(packet, Authenticator(KEY))[0] == 0
    assert [tlv.type for tlv in iterate(packet[112:])] == [5, 8, 1]
    assert is_sealed(0, packet[112:], Authenticator(KEY))
    assert len(packet) == 300


@pytest.mark.parametrize(
    "wrong", [{"ssid": 0}, {"ssid": 1 << 16}, {"floor_ns": 0}, {"k": 0}, {"capacity": 0}]
)
def test_impossible_sessions_are_our_mistake(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="no such session"):
        SessionSender(**{"ssid": SSID} | wrong)  # type: ignore[arg-type]


# -- delay ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset_ns", [0, -(10**15), 10**15])
@pytest.mark.parametrize("key", [None, KEY])
def test_two_way_delay_leaves_out_the_reflectors_time_and_clock(
    offset_ns: int, key: bytes | None
) -> None:
    path = Path(key=key, offset_ns=offset_ns)
    answer = path.ask(dwell_ns=3 * MS)
    forward_ns = 10 * MS + offset_ns
    assert answer == Answer(
        0, NOW, NOW + 23 * MS, 20 * MS, was_overdue=False, tlvs=b"", forward_ns=forward_ns
    )
    assert path.sender.counters.absurd == 0


def test_reflectors_that_write_ntp_are_understood() -> None:
    sender = SessionSender(SSID)
    probe = parse_sender(sender.probe(NOW))
    t2, t3 = split_ntp(NOW + 7 * MS), split_ntp(NOW + 8 * MS)
    packet = pack_reflector((0, *t3, 0x0BD2, SSID, *t2, 0, *probe[1:3], probe[3], 64))
    assert sender.receive(packet, NOW + 21 * MS).delay_ns == 20 * MS


@pytest.mark.parametrize(
    ("t2", "t3"),
    [(8 * MS, 7 * MS), (0, 22 * MS), (-(10**18), 10**18)],
    ids=["negative", "longer than the whole", "beyond reason"],
)
def test_absurd_times_of_the_reflector_are_not_used(t2: int, t3: int) -> None:
    sender = SessionSender(SSID)
    probe = parse_sender(sender.probe(NOW))
    packet = pack_reflector(
        (0, *split_ptp(NOW + t3), 0x4BD2, SSID, *split_ptp(NOW + t2), 0, *probe[1:4], 64)
    )
    assert sender.receive(packet, NOW + 21 * MS).delay_ns == 21 * MS
    assert sender.counters.absurd == 1
    sample = sender.take_sample(NOW + 30 * MS)
    assert sample is not None
    assert (sample.delay_us, sample.delay_forward_us) == (21_000, 0)
    assert (sample.jitter_forward_us, sample.jitter_backward_us) == (0, 0)


def test_a_receive_time_before_the_send_time_is_no_negative_delay() -> None:
    path = Path()
    answer = path.reflect(path.probe())
    assert path.sender.receive(answer, NOW - MS).delay_ns == 0
    assert path.sender.counters.absurd == 1


# -- what is no answer ----------------------------------------------------------------------------


def test_duplicates_are_refused_and_change_nothing() -> None:
    path = Path()
    answer = path.reflect(path.probe())
    path.receive(answer)
    for _ in range(3):
        with pytest.raises(UnexpectedAnswer, match="before"):
            path.receive(answer)
    assert path.sender.counters.duplicate == 3
    sample = path.sender.take_sample(path.now)
    assert sample is not None
    assert (sample.sent, sample.answered) == (1, 1)


@pytest.mark.parametrize("sequence", [1, 2, 1 << 30, 1 << 31, (1 << 32) - 1])
def test_answers_to_probes_never_sent_are_refused(sequence: int) -> None:
    path = Path()
    probe = bytearray(path.probe())
    probe[:4] = sequence.to_bytes(4)
    with pytest.raises(UnexpectedAnswer, match="never"):
        path.receive(path.reflect(bytes(probe)))
    assert path.sender.counters.never_sent == 1
    assert path.receive(path.reflect(path.probe())).sequence == 1  # and the session goes on


def test_answers_of_another_session_are_refused() -> None:
    path = Path()
    other = SessionSender(SSID + 1)
    with pytest.raises(UnexpectedAnswer, match="SSID"):
        path.receive(path.reflect(other.probe(NOW)))
    assert path.sender.counters.foreign == 1


def test_replays_of_an_earlier_run_are_refused() -> None:
    old = Path()
    recorded = old.reflect(old.probe())
    path = Path()
    path.probe(NOW + 5_000 * MS)
    with pytest.raises(ForgedPacket, match="timestamp"):
        path.receive(recorded)
    assert path.sender.counters.forged == 1
    assert path.sender.next_deadline_ns() is not None  # still awaited


def test_malformed_and_forged_answers_are_refused() -> None:
    path = Path(key=KEY)
    answer = path.reflect(path.probe())
    with pytest.raises(MalformedPacket):
        path.receive(answer[:50])
    with pytest.raises(ForgedPacket):
        path.receive(answer[:100] + bytes(12))
    assert (path.sender.counters.malformed, path.sender.counters.forged) == (1, 1)
    assert path.receive(answer).sequence == 0


def test_a_probe_is_no_answer_in_authenticated_mode() -> None:
    """Sent back as it is, it bears a valid HMAC, but its octets say nothing as an answer."""
    path = Path(key=KEY)
    path.ask()
    probe = path.probe()
    with pytest.raises((ForgedPacket, UnexpectedAnswer)):
        path.receive(probe)


# -- deadlines ------------------------------------------------------------------------------------


def test_before_the_first_answer_the_initial_timeout_holds() -> None:
    sender = SessionSender(SSID, initial_timeout_ns=300 * MS)
    assert sender.next_deadline_ns() is None
    sender.probe(NOW)
    assert sender.next_deadline_ns() == NOW + 300 * MS
    assert sender.next_late_ns() is None
    assert sender.handle_timer(NOW + 300 * MS - 1) == ()
    assert sender.handle_timer(NOW + 300 * MS) == ((0, NOW),)
    assert sender.next_deadline_ns() is None


def test_a_steady_path_is_overdue_after_its_delay_and_the_floor() -> None:
    path = Path()
    path.settle()
    path.probe()
    assert path.sender.next_deadline_ns() == path.now + 24 * MS
    assert path.sender.next_late_ns() == path.now + 21 * MS
    assert path.sender.handle_timer(path.now + 24 * MS - 1) == ()
    assert len(path.sender.handle_timer(path.now + 24 * MS)) == 1
    assert path.sender.next_late_ns() is None  # it is overdue, not late


def test_a_restless_path_gets_k_deviations() -> None:
    # After the first answer the deviation is half the delay (RFC 6298 section 2.2).
    path = Path(k=3)
    path.ask()
    path.ask()
    path.probe()
    assert path.sender.next_deadline_ns() == path.now + 20 * MS + 3 * 10 * MS
    assert path.sender.next_late_ns() == path.now + 20 * MS + 3 * 10 * MS
    # 40 ms after 20 ms: smoothed 20 + 20 / 8 ms, deviation 10 + (20 - 10) / 4 ms.
    path.forth_ns += 20 * MS
    path.receive(path.reflect(path.probe()))
    assert path.sender.next_deadline_ns() == path.now + 22_500 * US + 3 * 12_500 * US


def test_a_first_answer_that_waited_for_a_handshake_is_not_remembered() -> None:
    """At a slow pace it would be minutes until a path's answers were missed as early as usual."""
    path = Path()
    path.forth_ns += 300 * MS
    path.ask()
    path.forth_ns -= 300 * MS
    path.now += 1_000 * MS
    path.ask()
    path.probe()
    assert path.sender.next_deadline_ns() == path.now + 20 * MS + 4 * 10 * MS


def test_a_suspected_path_gets_less_time_until_it_answers() -> None:
    path = Path()
    path.settle()
    suspected = path.probe()
    path.sender.suspect()
    assert path.sender.next_deadline_ns() == path.now + 21 * MS
    path.receive(path.reflect(suspected))
    path.probe()
    assert path.sender.next_deadline_ns() == path.now + 24 * MS


def test_suspicion_leaves_a_restless_path_its_deviations() -> None:
    path = Path()
    path.ask()
    path.probe()
    path.sender.suspect()
    assert path.sender.next_deadline_ns() == path.now + 20 * MS + 4 * 10 * MS


def test_a_path_that_never_answered_can_be_suspected() -> None:
    path = Path()
    path.probe()
    path.sender.suspect()
    assert path.sender.next_deadline_ns() == path.now + 500 * MS


def test_no_deadline_is_further_than_the_longest() -> None:
    path = Path(longest_timeout_ns=100 * MS)
    path.forth_ns = 80 * MS
    path.ask()
    path.probe()
    assert path.sender.next_deadline_ns() == path.now + 100 * MS


def test_probes_are_given_up_in_order_and_only_those_that_are_due() -> None:
    path = Path()
    path.settle()
    for _ in range(4):
        path.probe(path.now + 10 * MS)
    overdue = path.sender.handle_timer(path.now + 4 * MS)  # 34, 24, 14 and 4 ms old
    assert overdue == ((50, path.now - 30 * MS), (51, path.now - 20 * MS))
    assert path.sender.next_deadline_ns() == path.now - 10 * MS + 24 * MS


def test_our_own_lateness_moves_the_deadlines_of_what_was_under_way() -> None:
    path = Path()
    path.settle()
    path.probe()
    sent = path.now
    assert path.sender.handle_timer(sent + 30 * MS, shift_ns=20 * MS) == ()
    assert path.sender.next_deadline_ns() == sent + 44 * MS
    assert path.sender.next_late_ns() == sent + 41 * MS
    assert path.sender.handle_timer(sent + 44 * MS - 1, shift_ns=5 * MS) == ()  # they add up
    assert path.sender.next_deadline_ns() == sent + 49 * MS
    path.probe(sent + 45 * MS)  # sent after the stall: no grace
    assert len(path.sender.handle_timer(sent + 49 * MS)) == 1
    assert path.sender.next_deadline_ns() == sent + 69 * MS


def test_a_loop_that_is_always_late_cannot_keep_a_dead_path_alive() -> None:
    sender = SessionSender(SSID, longest_timeout_ns=1_000 * MS)
    sender.probe(NOW)
    given_up = [
        at
        for at in range(NOW, NOW + 5_000 * MS, 10 * MS)
        if sender.handle_timer(at, shift_ns=10 * MS)
    ]
    assert given_up == [NOW + 1_500 * MS]  # the initial timeout, and the most that it may move


def test_a_probe_without_answer_is_bounded_without_a_timer() -> None:
    path = Path(capacity=4)
    for _ in range(20):
        path.probe(path.now + MS)
    sample = path.sender.take_sample(path.now)
    assert sample is not None
    assert (sample.sent, sample.lost) == (16, 16)
    assert len(path.sender._awaited) == len(path.sender._overdue) == 4


# -- verdicts that are taken back -----------------------------------------------------------------


def test_a_late_answer_takes_its_loss_back_in_the_same_interval() -> None:
    path = Path()
    path.settle()
    answer = path.reflect(path.probe())
    path.sender.handle_timer(path.now + 24 * MS)
    assert path.sender.receive(answer, path.now + 90 * MS).was_overdue
    sample = path.sender.take_sample(path.now + 100 * MS)
    assert sample is not None
    assert (sample.sent, sample.answered, sample.lost, sample.recovered) == (1, 1, 0, 0)
    assert sample.delay_max_us == 90_000
    with pytest.raises(UnexpectedAnswer):
        path.receive(answer)


def test_a_late_answer_takes_its_loss_back_in_a_later_interval() -> None:
    path = Path()
    path.settle()
    answer = path.reflect(path.probe())
    path.sender.handle_timer(path.now + 24 * MS)
    first = path.sender.take_sample(path.now + 30 * MS)
    assert first is not None
    assert (first.sent, first.lost) == (1, 1)
    path.sender.receive(answer, path.now + 90 * MS)
    second = path.sender.take_sample(path.now + 100 * MS)
    assert second is not None
    assert (second.sent, second.answered, second.lost, second.recovered) == (0, 0, 0, 1)
    assert second.delay_us == 90_000


def test_late_answers_teach_the_new_delay() -> None:
    path = Path()
    path.settle()
    path.forth_ns += 80 * MS
    lost = 0
    under_way: list[tuple[int, bytes]] = []
    for _ in range(60):
        probe = path.probe(path.now + 20 * MS)
        under_way.append((path.now + 100 * MS, path.reflect(probe)))
        while under_way and under_way[0][0] <= path.now:
            at, answer = under_way.pop(0)
            path.sender.receive(answer, at)
        lost += len(path.sender.handle_timer(path.now))
    assert lost <= 6  # those under way when the delay rose


def test_what_comes_after_the_longest_time_stays_lost_and_teaches_nothing() -> None:
    path = Path(longest_timeout_ns=100 * MS)
    path.settle()
    answer = path.reflect(path.probe())
    path.sender.handle_timer(path.now + 100 * MS)
    deadline = path.sender._timeout_ns
    with pytest.raises(UnexpectedAnswer, match="came after 100 ms"):
        path.sender.receive(answer, path.now + 101 * MS - 1)
    assert path.sender.counters.stale == 1
    assert path.sender._timeout_ns == deadline
    sample = path.sender.take_sample(path.now + 101 * MS)
    assert sample is not None
    assert (sample.lost, sample.recovered) == (1, 0)


def test_answers_too_late_to_be_remembered_are_duplicates() -> None:
    path = Path(capacity=2)
    answers = [path.reflect(path.probe()) for _ in range(2)]
    path.sender.handle_timer(path.now + 10**10)
    for _ in range(3):
        path.probe()
    path.sender.handle_timer(path.now + 2 * 10**10)
    with pytest.raises(UnexpectedAnswer):
        path.receive(answers[0])


# -- what watchers read ---------------------------------------------------------------------------


def test_unanswered_probes_since_the_last_answered_one() -> None:
    path = Path()
    sender = path.sender
    path.settle()
    assert (sender.unanswered, sender.answers_in_row) == (0, 50)
    first, second, third = (path.reflect(path.probe(path.now + 20 * MS)) for _ in range(3))
    sent = path.now
    sender.handle_timer(sent + 30 * MS)
    assert (sender.unanswered, sender.answers_in_row) == (3, 0)
    sender.receive(second, sent + 40 * MS)  # late, and the first is behind it now
    assert (sender.unanswered, sender.answers_in_row) == (1, 1)
    sender.receive(first, sent + 41 * MS)
    assert (sender.unanswered, sender.answers_in_row) == (1, 2)
    sender.receive(third, sent + 42 * MS)
    assert (sender.unanswered, sender.answers_in_row) == (0, 3)


def test_nothing_resolved_is_no_sample() -> None:
    path = Path()
    assert path.sender.take_sample(path.now) is None
    path.probe()
    assert path.sender.take_sample(path.now) is None


# -- loss by direction ----------------------------------------------------------------------------


def lose(path: Path, fates: str) -> None:
    """A probe for each letter: . answered, f lost on the way forth, b lost on the way back."""
    for fate in fates:
        probe = path.probe(path.now + 20 * MS)
        if fate != "f":
            answer = path.reflect(probe)
            if fate == ".":
                path.receive(answer)
    path.sender.handle_timer(path.now + 10**10)


@pytest.mark.parametrize("first_sequence", [0, (1 << 32) - 10, (1 << 32) - 4])
@pytest.mark.parametrize("fates", [".f.b.", "ff.bbb.fbf.", "fff.", ".bbbbbbbb.ffff.", "bf.fb."])
def test_losses_are_told_apart_by_direction(fates: str, first_sequence: int) -> None:
    path = Path(first_sequence=first_sequence)
    lose(path, fates)
    sample = path.sender.take_sample(path.now)
    assert sample is not None
    assert (sample.lost_forward, sample.lost_backward) == (fates.count("f"), fates.count("b"))
    assert sample.lost == fates.count("f") + fates.count("b")


def test_directions_are_known_only_after_a_later_answer() -> None:
    path = Path()
    lose(path, ".fb")
    sample = path.sender.take_sample(path.now)
    assert sample is not None
    assert (sample.lost, sample.lost_forward, sample.lost_backward) == (2, 0, 0)
    lose(path, ".")
    sample = path.sender.take_sample(path.now)
    assert sample is not None
    assert (sample.lost, sample.lost_forward, sample.lost_backward) == (0, 1, 1)


def test_a_late_answer_is_taken_off_its_direction() -> None:
    path = Path()
    path.settle()
    late = path.reflect(path.probe())
    sent = path.now
    lose(path, ".")
    sample = path.sender.take_sample(path.now)
    assert sample is not None
    assert (sample.lost_forward, sample.lost_backward) == (0, 1)
    path.sender.receive(late, sent + 300 * MS)
    sample = path.sender.take_sample(path.now)
    assert sample is not None
    assert (sample.recovered, sample.recovered_forward, sample.recovered_backward) == (1, 0, 1)


def test_a_probe_overtaken_on_the_way_forth_is_not_lost() -> None:
    path = Path()
    path.settle()
    first, second = path.probe(), path.probe()
    answers = path.reflect(second), path.reflect(first)  # the second arrives first
    for answer in answers:
        path.receive(answer)
    lose(path, "...f.")
    sample = path.sender.take_sample(path.now)
    assert sample is not None
    assert (sample.lost_forward, sample.lost_backward) == (1, 0)


def test_a_probe_overtaken_both_ways_is_not_lost() -> None:
    path = Path()
    path.settle()
    first, second, third = (path.probe() for _ in range(3))
    answers = [path.reflect(probe) for probe in (second, first, third)]
    for i in (0, 2, 1):
        path.receive(answers[i])
    lose(path, "f.b.")
    sample = path.sender.take_sample(path.now)
    assert sample is not None
    assert (sample.lost_forward, sample.lost_backward) == (1, 1)


def test_answers_overtaken_on_the_way_back_say_nothing_of_the_way_forth() -> None:
    path = Path()
    path.settle()
    lose(path, "f.")
    answers = [path.reflect(path.probe()) for _ in range(3)]
    for i in (2, 0, 1):
        path.receive(answers[i])
    sample = path.sender.take_sample(path.now)
    assert sample is not None
    assert (sample.lost_forward, sample.lost_backward) == (1, 0)


def test_a_reflector_that_starts_anew_is_followed() -> None:
    path = Path()
    path.settle()
    path.reflector = SessionReflector()
    lose(path, "ff.b.f.")
    sample = path.sender.take_sample(path.now)
    assert sample is not None
    assert (sample.lost_forward, sample.lost_backward) == (3, 1)


def test_a_session_that_is_older_there_is_joined() -> None:
    old = Path()
    old.settle(200)
    path = Path()
    path.reflector, path.now = old.reflector, old.now
    path.sender = SessionSender(SSID, first_sequence=100)  # not 0: it cannot know
    lose(path, "..f.b.")
    sample = path.sender.take_sample(path.now)
    assert sample is not None
    assert (sample.lost_forward, sample.lost_backward) == (1, 1)


# -- what the far end says over another path ------------------------------------------------------


def said(path: Path, *, later_ns: int = 2 * MS) -> tuple[int, int]:
    """What the far end knows when a probe that is sent `later_ns` from now arrives there."""
    report = path.reflector.received(SOURCE, SSID)
    assert report is not None
    return path.sender.arrived(report, path.now + path.forth_ns + path.offset_ns + later_ns)


@pytest.mark.parametrize(
    ("fates", "arrived"), [("ffffff", 0), ("bbbbbb", 6), ("bffbff", 2), ("fffffb", 1)]
)
@pytest.mark.parametrize("offset_ns", [0, 10**12, -(10**12)])
def test_a_path_report_tells_which_way_is_cut(fates: str, arrived: int, offset_ns: int) -> None:
    path = Path(offset_ns=offset_ns)
    path.settle()
    lose(path, fates)
    assert path.sender.unanswered == 6
    assert said(path) == (6, arrived)


def test_a_report_is_of_probes_without_a_verdict_too() -> None:
    path = Path()
    path.settle()
    lose(path, "fb")
    for _ in range(2):
        path.reflect(path.probe())
    assert path.sender.unanswered == 2
    assert said(path) == (4, 3)


def test_a_report_is_not_of_probes_that_may_be_on_their_way() -> None:
    path = Path()
    path.settle()
    lose(path, "f")
    before = path.now
    for _ in range(3):
        path.probe(before + 20 * MS)
    path.sender.handle_timer(path.now + 10**10)
    assert path.sender.unanswered == 4
    assert said(path, later_ns=0) == (1, 0)  # a quicker path can tell no more
    assert said(path) == (4, 0)
    path.reflect(path.sender.probe(path.now))  # one comes sooner than it had to
    assert said(path, later_ns=0) == (1, 0)


def test_a_report_says_nothing_where_the_way_forth_was_never_measured() -> None:
    path = Path()
    lose(path, "fbf")
    assert path.sender.due_there_ns(path.now) is None
    assert said(path) == (0, 0)


def test_a_report_from_before_the_trouble_tells_nothing() -> None:
    path = Path()
    path.settle(10)
    report = path.reflector.received(SOURCE, SSID)
    assert report is not None
    at_ns = path.now + path.forth_ns
    path.settle(10)
    lose(path, "ff")
    assert path.sender.arrived(report, at_ns) == (0, 0)


def test_a_report_of_a_reflector_that_knows_nothing_is_of_no_arrival() -> None:
    path = Path()
    path.settle()
    lose(path, "bb")
    assert path.sender.arrived(PathReport(SSID), path.now + 10**9) == (2, 0)


def test_a_report_after_the_reflector_started_anew() -> None:
    path = Path()
    path.settle()
    path.reflector = SessionReflector()
    lose(path, "bfbb")
    assert said(path) == (4, 3)


def test_reports_are_asked_for_over_another_path() -> None:
    path, other = Path(), Path()
    other.reflector = path.reflector
    other.sender = SessionSender(SSID + 1)
    path.settle()
    lose(path, "bf")
    other.now = path.now + 2 * MS
    answer = other.receive(other.reflect(other.probe(tlvs=encode_path_report([SSID]))))
    value = find(answer.tlvs, Type.PATH_REPORT)
    assert value is not None
    (report,) = decode_path_report(value)
    assert answer.forward_ns is not None
    assert path.sender.arrived(report, answer.sent_ns + answer.forward_ns) == (2, 1)


# -- TLVs of answers ------------------------------------------------------------------------------


def test_tlvs_whose_integrity_failed_are_left_out() -> None:
    path = Path(key=KEY)
    answer = path.reflect(path.probe(tlvs=encode_path_report([SSID])))
    good = path.receive(answer)
    assert find(good.tlvs, Type.PATH_REPORT) is not None
    changed = bytearray(path.reflect(path.probe(tlvs=encode_path_report([SSID]))))
    changed[120] ^= 1
    found = path.receive(bytes(changed))
    assert (found.sequence, found.tlvs) == (1, b"")
    assert path.sender.counters.unsealed == 1
    truncated = path.reflect(path.probe(tlvs=encode_path_report([SSID])))[:-1]
    assert path.receive(truncated).tlvs == b""


def test_a_session_goes_on_past_two_to_the_32() -> None:
    path = Path(first_sequence=(1 << 32) - 3)
    found = [path.ask() for _ in range(6)]
    assert [answer.sequence for answer in found] == list(range((1 << 32) - 3, (1 << 32) + 3))
    sample = path.sender.take_sample(path.now)
    assert sample is not None
    assert (sample.answered, sample.lost) == (6, 0)
    assert parse_reflector(path.reflect(path.probe()))[7] == 3
