"""Transcripts: what a box still knows when it is told to be another one."""

from dataclasses import replace

from appliance.config.intent import Intent, Target, TargetKind
from appliance.contract.ids import SiteName, Slot
from appliance.core.actions import SetProbeInterval
from appliance.core.events import IntentChanged, ProbeOverdue, UplinkChanged, UplinkProbed
from tests.unit.core.box import GOOD, LOSSY, SLOW, Box, named
from tests.unit.core.examples import (
    DEFAULT_POLICY,
    HQ,
    SHOP,
    VOICE_POLICY,
    Fallback,
    Sla,
    facts,
    intent,
    ip_address,
    peer,
    uplink,
)

BAD_FIBRE = {"hq/1-1": LOSSY, "hq/1-2": LOSSY}
ALL_BAD = BAD_FIBRE | {"hq/2-1": LOSSY, "hq/2-2": LOSSY}
OTHERS_SLA = replace(DEFAULT_POLICY, sla=Sla(loss_ratio=0.05))
OFFICE = SiteName("head-office")


def reload(box: Box, after: Intent) -> None:
    box.tell(IntentChanged(after))


def test_an_sla_of_another_class_puts_nothing_back_on_a_bad_path() -> None:
    box = Box(intent())
    box.wait(100)
    box.wait(100, but=BAD_FIBRE)
    assert box.carrier() == "2-1"
    reload(box, intent(default=OTHERS_SLA))
    box.wait(20, but=BAD_FIBRE)
    assert box.moves() == ["initial 1-1", "sla-violated 2-1"]


def test_a_class_that_is_discarded_stays_so() -> None:
    closed = replace(VOICE_POLICY, fallback=Fallback.FAIL_CLOSED)
    box = Box(intent(voice=closed))
    box.wait(100)
    box.wait(60, but=ALL_BAD)
    assert box.carrier() == "-"
    before = box.moves()
    reload(box, intent(voice=closed, default=OTHERS_SLA))
    box.wait(20, but=ALL_BAD)
    assert box.moves() == before


def test_a_limit_that_is_new_begins_with_what_was_seen_lately() -> None:
    box = Box(intent(voice=replace(VOICE_POLICY, sla=Sla())))
    box.wait(100)
    box.wait(20, but=BAD_FIBRE | {"hq/2-1": SLOW})
    assert box.carrier() == "1-1"  # nothing limits anything
    reload(box, intent(voice=replace(VOICE_POLICY, sla=Sla(loss_ratio=0.02, delay_us=60_000))))
    assert box.moves()[-1] == "sla-violated 2-2"  # lossy, lossy and slow are the others


def test_what_was_seen_does_not_violate_a_limit_that_it_keeps_to() -> None:
    box = Box(intent())
    box.wait(100)
    reload(box, intent(voice=replace(VOICE_POLICY, sla=Sla(loss_ratio=0.02, delay_us=50_000))))
    box.wait(5)
    assert box.moves() == ["initial 1-1"]


def test_a_site_with_another_name_is_the_same_site() -> None:
    before = intent()
    box = Box(before)
    box.wait(100)
    box.kill("hq/1-1", "hq/1-2")
    assert box.carrier() == "2-1"
    reload(box, replace(before, peers=(replace(before.peers[0], name=OFFICE),)))
    assert box.carrier(site=OFFICE) == "2-1"
    assert list(box.state.sites) == [OFFICE]
    paces = {a.path.site: a.interval_s for _, a in box.actions if isinstance(a, SetProbeInterval)}
    assert paces[OFFICE] == box.state.intent.probing.interval_s  # by its new name, too
    assert not [w for w in box.warnings if "hq" in w]


def test_of_an_uplink_with_another_device_nothing_is_known() -> None:
    before = intent()
    fibre, dsl = before.uplinks
    box = Box(before)
    box.wait(100)
    box.wait(20, but=BAD_FIBRE)
    assert box.carrier() == "2-1"
    swapped = (replace(fibre, device=dsl.device), replace(dsl, device=fibre.device))
    reload(box, replace(before, uplinks=swapped))
    assert {p.estimate.answered for p in box.state.sites[HQ].paths.values()} == {0}
    for slot in (1, 2):
        box.tell(UplinkChanged(facts(slot)))
    box.wait(20, but={"hq/2-1": LOSSY, "hq/2-2": LOSSY})
    assert box.carrier() == "1-1"  # the good line is that of slot 1 now, and nothing speaks for 2


def test_a_name_that_another_site_has_now_says_nothing_of_it() -> None:
    box = Box(intent())
    box.wait(100)
    box.kill("hq/1-1", "hq/1-2")
    reload(box, intent(peers=(peer("hq", 77),)))
    assert box.path("hq/1-1").estimate.answered == 0
    assert box.carrier() == "1-1"


def test_probes_of_a_site_that_is_gone_are_nobodys_evidence() -> None:
    peers = (peer("hq", 3), peer("shop", 4))
    box = Box(intent(peers=peers))
    box.wait(10)
    box.now += 0.1
    for name in ("shop/1-1", "shop/1-2", "hq/1-1"):
        box.tell(ProbeOverdue(named(name), 0.024, 1, 5.0))
    assert len(box.state.uplinks[Slot(1)].overdue) == 3
    reload(box, intent(peers=peers[:1]))
    assert SHOP not in box.state.sites
    assert [path.site for _, path in box.state.uplinks[Slot(1)].overdue] == [named("hq/1-1").site]
    box.now += 0.1
    for count in range(2, 8):
        box.tell(ProbeOverdue(named("hq/1-1"), 0.024, count, 5.0))
        box.tell(ProbeOverdue(named("hq/1-2"), 0.024, count, 5.0))


def test_an_uplink_that_asks_nobody_any_more_is_not_unhealthy() -> None:
    asked = replace(uplink(1, "fibre"), targets=(Target(TargetKind.ICMP, ip_address("192.0.2.9")),))
    box = Box(intent(uplinks=(asked, uplink(2, "dsl"))))
    box.wait(1)
    told = UplinkProbed(Slot(1), answered=0, asked=1, is_healthy=False, evidence="0 of 1")
    box.tell(told)
    reload(box, intent(uplinks=(replace(asked, weight=2), uplink(2, "dsl"))))
    assert "uplink-unhealthy fibre" in box.warnings
    reload(box, intent())
    assert "uplink-unhealthy fibre" not in box.warnings
    assert box.state.uplinks[Slot(1)].probed is None


def test_nothing_changes_when_nothing_did() -> None:
    box = Box(intent())
    box.wait(30, GOOD)
    before = box.state
    reload(box, intent())
    assert box.state.sites == before.sites
    assert box.moves() == ["initial 1-1"]
