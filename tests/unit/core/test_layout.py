from appliance.config.intent import Mode
from appliance.contract.ids import Label, Plane, SiteName, Slot
from appliance.core.layout import lay_out
from tests.unit.core.examples import (
    DEFAULT_POLICY,
    DSL,
    FIBRE,
    LTE,
    VOICE_POLICY,
    Sla,
    intent,
    peer,
    policy,
    uplink,
)

UPLINKS = (uplink(1, "fibre"), uplink(2, "dsl", weight=5), uplink(3, "lte", metered=True))


def candidates(**changes: object) -> dict[str, tuple[int, bool, int]]:
    """Plane -> tier, metered, weight, for voice to hq."""
    voice = policy(VOICE_POLICY, **changes)
    layout = lay_out(intent(uplinks=UPLINKS, peers=(peer("hq", 3),), voice=voice))
    plan = layout.shapes[SiteName("hq")].classes[0]
    return {str(c.plane): (c.tier, c.is_metered, c.weight) for c in plan.candidates}


def test_the_tier_is_that_of_the_own_uplink_when_the_far_label_is_not_listed() -> None:
    assert candidates() == {
        "1-1": (0, False, 1),
        "1-2": (0, False, 1),
        "2-1": (1, False, 5),
        "2-2": (1, False, 5),
        "3-1": (2, True, 1),
        "3-2": (2, True, 1),
    }


def test_a_listed_far_label_makes_the_tier_worse() -> None:
    tiers = ((FIBRE, Label("cable")), (DSL, Label("cable2")))
    found = candidates(tiers=tiers)
    assert {plane: tier for plane, (tier, _, _) in found.items()} == {
        "1-1": 0,
        "1-2": 1,
        "2-1": 1,
        "2-2": 1,
    }


def test_what_no_tier_names_is_not_used() -> None:
    assert set(candidates(tiers=((LTE,),))) == {"3-1", "3-2"}


def test_a_policy_may_refuse_metered_uplinks() -> None:
    assert set(candidates(metered=False)) == {"1-1", "1-2", "2-1", "2-2"}


def test_names_mention_the_far_uplink_where_there_is_a_choice() -> None:
    layout = lay_out(intent(peers=(peer("hq", 3), peer("shop", 4, ("dsl",)))))
    assert layout.shapes[SiteName("hq")].names[Plane(Slot(1), Slot(2))] == "fibre to cable2 (1-2)"
    assert layout.shapes[SiteName("shop")].names[Plane(Slot(1), Slot(1))] == "fibre (1-1)"


def test_equal_slas_and_limits_are_judged_once() -> None:
    same = policy(DEFAULT_POLICY, sla=VOICE_POLICY.sla)
    layout = lay_out(intent(default=same))
    assert len(layout.slas) == len(layout.limits) == 1
    other = policy(DEFAULT_POLICY, sla=Sla(loss_ratio=0.05, mos=3.6))
    layout = lay_out(intent(default=other))
    assert len(layout.slas) == 2
    assert len(layout.limits) == 3


def test_who_may_use_an_uplink_may_use_its_stand_ins_and_the_default_class_ranks_them() -> None:
    default = policy(DEFAULT_POLICY, tiers=((DSL,), (FIBRE,)), mode=Mode.SHARE)
    assert lay_out(intent(uplinks=UPLINKS)).stand_ins == {1: (2, 3), 2: (1, 3), 3: (1, 2)}
    found = lay_out(intent(uplinks=UPLINKS, default=default)).stand_ins
    assert found == {1: (2,), 2: (1,), 3: (2, 1)}
    never_metered = policy(VOICE_POLICY, metered=False)
    found = lay_out(intent(uplinks=UPLINKS, voice=never_metered)).stand_ins
    assert found == {1: (2,), 2: (1,), 3: (1, 2)}


def test_flows_are_spread_over_paths_in_modes_that_share_and_as_one_only_toward_a_site() -> None:
    for mode, is_bonded, is_single in (
        (Mode.SINGLE, False, True),
        (Mode.DUPLICATE, False, True),
        (Mode.SHARE, False, False),
        (Mode.BOND, True, False),
    ):
        layout = lay_out(intent(voice=policy(VOICE_POLICY, mode=mode)))
        to_site, outside = layout.shapes[SiteName("hq")].classes[0], layout.internet.classes[0]
        assert (to_site.is_bonded, outside.is_bonded) == (is_bonded, False)
        assert to_site.is_single == outside.is_single == is_single


def test_sites_that_look_alike_share_their_shape() -> None:
    peers = tuple(peer(f"s{n}", n + 2) for n in range(1000))
    hub = intent(peers=peers)
    layout = lay_out(hub)
    assert len({id(shape) for shape in layout.shapes.values()}) == 1
