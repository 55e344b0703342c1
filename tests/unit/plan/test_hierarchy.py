"""Shares of classes as HTB classes, and as the commands that make them."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from appliance.config.intent import ClassShare, Shaping
from appliance.plan.hierarchy import CONTROL, LEAST_BPS, OTHERS, ROOT, nodes
from appliance.plan.plan import Add, Change, Key, Kind, Shaper, Share
from appliance.plan.shape import shapers, shaping_items
from appliance.plan.text import render_op
from appliance.plan.underlay import attachments
from tests.unit.plan import examples as ex

KEY = Key(Kind.SHAPER, ("bl-up1",))
OVERLAY = "fd12:3456:789a::/48"
SHAPER = Shaper(20_000_000, 78, False, (Share(1, 8_000_000, 16_000_000),), OVERLAY)


def test_the_commands_that_make_one() -> None:
    leaf = "htb prio 1 rate {}bit ceil {}bit burst {} cburst {} overhead 78 quantum {}"
    assert render_op(Add(KEY, SHAPER)).splitlines() == [
        "tc qdisc replace dev bl-up1 root handle b1: htb default f",
        "tc class add dev bl-up1 parent b1: classid b1:ffff htb prio 0 rate 20000000bit "
        "ceil 20000000bit burst 3028 cburst 3028 overhead 78 quantum 1514",
        "tc class add dev bl-up1 parent b1:ffff classid b1:10 htb prio 0 rate 2000000bit "
        "ceil 20000000bit burst 3028 cburst 3028 overhead 78 quantum 3000",
        "tc qdisc add dev bl-up1 parent b1:10 handle b110: cake unlimited besteffort",
        "tc class add dev bl-up1 parent b1:ffff classid b1:1 "
        + leaf.format(8_000_000, 16_000_000, 3028, 3028, 12_000),
        "tc qdisc add dev bl-up1 parent b1:1 handle b101: cake unlimited diffserv4 nat",
        "tc class add dev bl-up1 parent b1:ffff classid b1:f "
        + leaf.format(10_000_000, 20_000_000, 3028, 3028, 15_000),
        "tc qdisc add dev bl-up1 parent b1:f handle b10f: cake unlimited diffserv4 nat",
        "tc filter add dev bl-up1 parent b1: protocol ipv6 pref 1 "
        "flower src_ip fd12:3456:789a::/48 ip_tos 0xc0/0xc0 classid b1:10",
        "tc filter add dev bl-up1 parent b1: protocol all pref 2 "
        "handle 0x10000000/0xf0000000 fw classid b1:1",
    ]


def test_other_rates_change_classes_and_anything_else_begins_anew() -> None:
    slower = replace(SHAPER, rate_bps=10_000_000, shares=(Share(1, 4_000_000, 8_000_000),))
    changed = render_op(Change(KEY, SHAPER, slower)).splitlines()
    assert len(changed) == 4
    assert all(line.startswith("tc class change dev bl-up1 ") for line in changed)
    cake = Shaper(20_000_000, 78, is_ingress=False)
    other = replace(SHAPER, shares=(Share(2, 4_000_000, 8_000_000),))
    moved = replace(SHAPER, overlay="fd12:3456:789b::/48")
    for before, after in ((cake, SHAPER), (SHAPER, cake), (SHAPER, other), (SHAPER, moved)):
        first, *rest = render_op(Change(KEY, before, after)).splitlines()
        assert first == "tc qdisc del dev bl-up1 root"
        assert "\n".join(rest) == render_op(Add(KEY, after))


@given(
    st.integers(100_000, 10_000_000_000).map(lambda bps: bps // 8 * 8),
    st.lists(st.integers(1, 40), min_size=1, max_size=14).filter(lambda s: sum(s) <= 85),
)
def test_every_class_has_a_rate_and_all_together_no_more_than_there_is(
    rate_bps: int, percents: list[int]
) -> None:
    shares = tuple(
        Share(index, max(LEAST_BPS, rate_bps * p // 100 // 8 * 8), rate_bps)
        for index, p in enumerate(percents, 1)
    )
    root, *others = nodes(Shaper(rate_bps, 78, is_ingress=False, shares=shares))
    assert (root.minor, root.rate_bps) == (ROOT, rate_bps)
    assert {CONTROL, OTHERS} < {node.minor for node in others}
    assert sum(node.rate_bps for node in others) <= rate_bps + len(others) * LEAST_BPS
    for node in others:
        assert node.rate_bps % 8 == node.ceiling_bps % 8 == 0
        assert LEAST_BPS <= node.rate_bps <= node.ceiling_bps
        assert 1514 <= node.quantum <= 60_000


def test_shares_follow_the_rate_and_packets_come_with_their_class() -> None:
    share = ClassShare(ex.VOICE, 0.25, 0.5)
    shaping = Shaping(20_000_000, 40_000_000, shares=(share,))
    fibre = replace(ex.BRANCH.uplinks[0], shaping=shaping)
    intent = replace(ex.BRANCH, uplinks=(fibre, *ex.BRANCH.uplinks[1:]))
    attached = attachments(intent, ex.BRANCH_FACTS)
    found = dict(shapers(intent, attached, {}))
    (voice,) = (each.index for each in intent.classes if each.name == ex.VOICE)
    for device, rate_bps in (("bl-up1", 20_000_000), ("bl-down1", 40_000_000)):
        assert found[Key(Kind.SHAPER, (device,))] == Shaper(
            rate_bps, 78, False, (Share(voice, rate_bps // 4, rate_bps // 2),), OVERLAY
        )
    items = shaping_items(intent, ex.BRANCH_FACTS, attached)
    redirects = [item for key, item in items.items() if key.kind is Kind.REDIRECT]
    assert {item.is_marked for item in redirects if item.to is not None} == {True}  # type: ignore[union-attr]
    assert {item.is_marked for item in redirects if item.to is None} == {False}  # type: ignore[union-attr]
