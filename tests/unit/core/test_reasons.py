"""Every sentence that a person may read, in one story, compared as a whole.

`python -m tests.unit.core.test_reasons` writes the golden file anew after a change of wording.
"""

from pathlib import Path

from appliance.contract.ids import Plane, SiteName, Slot
from appliance.core import reasons
from appliance.core.actions import ClearWarning, DetourPlanes, MoveClass, RaiseWarning
from appliance.core.estimate import UNMEASURED, Counts, Estimate
from appliance.core.events import (
    FarEndReported,
    IntentChanged,
    PathMtuChanged,
    ProbeOverdue,
    UplinkChanged,
)
from appliance.core.layout import Candidate, lay_out
from appliance.core.selection import stand
from appliance.core.state import Liveness, PathState
from appliance.core.verdict import MEETS
from tests.unit.core.box import LOSSY, SLOW, Box, named
from tests.unit.core.examples import (
    DSL,
    FIBRE,
    LTE,
    VOICE_POLICY,
    Fallback,
    Mode,
    Sla,
    facts,
    intent,
    peer,
    policy,
    uplink,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "core_story.txt"
UPLINKS = (uplink(1, "fibre"), uplink(2, "dsl"), uplink(3, "lte", metered=True))
PEERS = (peer("hq", 3), peer("shop", 4, ("cable",)))


def configured(**changes: object):
    return intent(uplinks=UPLINKS, peers=PEERS, voice=policy(VOICE_POLICY, **changes))


def story() -> str:
    box = Box(configured())
    lines: list[str] = []

    def chapter(title: str) -> None:
        for at, action in box.actions:
            match action:
                case MoveClass(cause=cause, reason=reason):
                    lines.append(f"{at:7.1f} {cause}: {reason}")
                case DetourPlanes(reason=reason):
                    lines.append(f"{at:7.1f} detour: {reason}")
                case RaiseWarning(code, subject, severity, text):
                    lines.append(f"{at:7.1f} {severity} {code} [{subject}] {text}")
                case ClearWarning(code, subject):
                    lines.append(f"{at:7.1f} over: {code} [{subject}]")
                case _:
                    pass
        box.actions.clear()
        lines.append(f"\n== {title}")

    chapter("a cold start")
    box.wait(70)
    chapter("delay")
    box.wait(3, but={"hq/1-1": SLOW, "hq/1-2": SLOW})
    box.wait(65)
    chapter("loss")
    box.wait(3, but={"hq/1-1": LOSSY, "hq/1-2": LOSSY})
    box.wait(130)
    chapter("a path dies, and the far end tells in which direction")
    box.tell(ProbeOverdue(named("hq/1-1"), 0.024, 3, 0.01))
    box.tell(FarEndReported(named("hq/1-1"), 3, 0))
    box.kill("hq/1-2")
    box.tell(FarEndReported(named("hq/1-2"), 4, 4))
    box.revive("hq/1-1", "hq/1-2")
    box.wait(65)
    chapter("an uplink falls silent")
    for name in ("hq/1-1", "shop/1-1", "hq/1-2", "hq/1-1"):
        box.now += 0.02
        box.tell(ProbeOverdue(named(name), 0.024, 1, 0.1))
    box.revive("hq/1-1", "hq/1-2", "shop/1-1")
    box.wait(65)
    chapter("an uplink loses its carrier, then another, then all")
    for slot in (1, 2, 3):
        box.tell(UplinkChanged(facts(slot, carrier=False)))
    chapter("one is back")
    box.tell(UplinkChanged(facts(2)))
    box.revive("hq/2-1", "hq/2-2", "shop/2-1")
    box.wait(5, but={str(p): None for p in box.paths if p.plane.local != 2})
    chapter("it can carry less")
    box.tell(PathMtuChanged(named("shop/2-1"), 1380))
    box.tell(PathMtuChanged(named("shop/2-1"), 1420))
    chapter("nothing meets the SLA")
    but = {str(p): None for p in box.paths if p.plane.local != 2}
    box.wait(3, SLOW, but=but)
    chapter("so the operator would rather have silence")
    box.tell(IntentChanged(configured(fallback=Fallback.FAIL_CLOSED)))
    chapter("then everything is well again")
    for slot in (1, 3):
        box.tell(UplinkChanged(facts(slot)))
    box.wait(70)
    chapter("sharing")
    box.tell(IntentChanged(configured(mode=Mode.SHARE, tiers=((FIBRE, DSL), (LTE,)))))
    box.wait(3, but={"shop/1-1": SLOW})
    box.wait(65)
    chapter("only lte")
    box.tell(IntentChanged(configured(tiers=((LTE,),))))
    chapter("the end")
    return "\n".join(lines) + "\n"


def test_the_sentences_are_those_of_the_golden_file() -> None:
    assert story() == GOLDEN.read_text()


def test_a_policy_in_words() -> None:
    full = policy(
        VOICE_POLICY,
        tiers=((FIBRE, DSL), (LTE,)),
        sla=Sla(loss_ratio=0.01, delay_us=150_000, jitter_us=30_000, mos=3.6),
        mode=Mode.SHARE,
        metered=False,
        fallback=Fallback.FAIL_CLOSED,
    )
    assert reasons.policy(full) == (
        "fibre or dsl, then lte; loss at most 1 %; delay at most 150 ms; jitter at most 30 ms; "
        "MOS at least 3.6; shared by weight; fail closed; never metered"
    )
    bonded = policy(VOICE_POLICY, tiers=((FIBRE, DSL),), sla=Sla(loss_ratio=0.01), mode=Mode.BOND)
    assert reasons.policy(bonded) == "fibre or dsl; loss at most 1 %; bonded; best effort"


def test_more_loss_than_the_sla_allows_is_not_called_meeting_it() -> None:
    layout = lay_out(configured(sla=Sla(loss_ratio=0.01)))
    voice = layout.shapes[SiteName("hq")].classes[0]
    plane = Plane(Slot(1), Slot(1))
    candidate = Candidate(plane, 0, False, 1, "fibre (1-1)")
    sentences = []
    for lost in (0, 3):
        path = PathState(plane, Liveness.UP, estimate=measured(lost=lost), verdicts=(MEETS,))
        sentences.append(reasons.carries(voice, [stand(candidate, path, MEETS, is_attached=True)]))
    assert sentences == [
        "fibre (1-1) meets its SLA with 0.0 % loss and 20 ms",
        "fibre (1-1) carries it with 3 % loss and 20 ms, "
        "not yet enough to say that its SLA is violated",
    ]


def measured(lost: int) -> Estimate:
    return UNMEASURED._replace(
        answered=100, delay_us=20_000, long_delay_us=20_000, current=Counts(100, lost, lost, 0)
    )


def test_lists_for_people() -> None:
    assert [reasons.join(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        *("", "a", "a and b", "a, b and c")
    ]


if __name__ == "__main__":
    GOLDEN.write_text(story())
