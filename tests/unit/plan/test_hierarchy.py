"""Shares of classes as HTB classes, and as the commands that make them."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from appliance.config.intent import ClassShare, Shaping, SiteShare
from appliance.plan.hierarchy import CONTROL, LEAST_BPS, OTHERS, ROOT, nodes, render_hierarchy
from appliance.plan.plan import Add, Change, Key, Kind, Shaper, Share, SiteQueue
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
        "tc qdisc add dev bl-up1 parent b1:10 handle b110: cake unlimited besteffort split-gso",
        "tc class add dev bl-up1 parent b1:ffff classid b1:1 "
        + leaf.format(8_000_000, 16_000_000, 3028, 3028, 12_000),
        "tc qdisc add dev bl-up1 parent b1:1 handle b101: cake unlimited diffserv4 nat split-gso",
        "tc class add dev bl-up1 parent b1:ffff classid b1:f "
        + leaf.format(10_000_000, 20_000_000, 3028, 3028, 15_000),
        "tc qdisc add dev bl-up1 parent b1:f handle b10f: cake unlimited diffserv4 nat split-gso",
        "tc filter add dev bl-up1 parent b1: protocol ipv6 pref 1 "
        "flower src_ip fd12:3456:789a::/48 ip_tos 0xc0/0xc0 classid b1:10",
        "tc filter add dev bl-up1 parent b1: protocol all pref 4 "
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
    whole = replace(SHAPER, keeps_gso=True)
    changes = ((cake, SHAPER), (SHAPER, cake), (SHAPER, other), (SHAPER, moved), (SHAPER, whole))
    for before, after in changes:
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


def test_a_line_that_is_fast_for_certain_cuts_nothing_up() -> None:
    """One that may be slow, because its rate is learned, does, and one with queues of its own."""
    for least, is_fast in ((499_999_992, False), (500_000_000, True)):
        for shares in ((), (ClassShare(ex.VOICE, 0.2),)):
            kept = is_fast and not shares
            most = 2 * least
            shaping = Shaping(most, most, 18, least, least, shares)
            uplink = replace(ex.BRANCH.uplinks[0], shaping=shaping)
            intent = replace(ex.BRANCH, uplinks=(uplink,))
            found = dict(shapers(intent, attachments(intent, ex.BRANCH_FACTS), {}))
            assert [shaper.keeps_gso for shaper in found.values()] == [kept, kept]
            words = "no-split-gso" if kept else "split-gso"
            assert all(f" {words}" in render_op(Add(key, shaper)) for key, shaper in found.items())


def sites_of(
    *downs: int | None, sites: tuple[SiteShare, ...] = (), classes: tuple[ClassShare, ...] = ()
) -> dict[str, Shaper]:
    """The shapers, by device, of a branch that knows what the lines of hq receive."""
    shaping = Shaping(20_000_000, 50_000_000, shares=classes, sites=sites)
    first, *others = ex.BRANCH.peers
    pairs = zip(first.uplinks, downs, strict=True)
    lines = tuple(replace(line, down_bps=down) for line, down in pairs)
    intent = replace(
        ex.BRANCH,
        uplinks=(replace(ex.BRANCH.uplinks[0], shaping=shaping),),
        peers=(replace(first, uplinks=lines), *others),
    )
    found = shapers(intent, attachments(intent, ex.BRANCH_FACTS), {})
    return {str(key.ident[0]): shaper for key, shaper in found}


NETWORKS = ("192.168.3.0/24", "2001:db8:3::/48")


def test_a_line_of_a_site_gets_no_more_than_it_receives() -> None:
    """Half of the nine tenths that probes leave are for sites: all of it for the only one."""
    found = sites_of(5_000_000, None)
    assert found["bl-up1"].sites == (SiteQueue(5_000_000, 5_000_000, NETWORKS, "bl-1-1"),)
    assert not found["bl-down1"].is_hierarchy
    both = sites_of(8_000_000, 4_000_000)["bl-up1"].sites
    assert [(queue.guarantee_bps, queue.ceiling_bps) for queue in both] == [
        (6_000_000, 8_000_000),
        (3_000_000, 4_000_000),
    ]
    faster = sites_of(1_000_000_000, None)["bl-up1"].sites
    assert [queue.ceiling_bps for queue in faster] == [20_000_000]


def test_a_site_with_a_share_is_held_to_it_over_all_its_lines() -> None:
    share = SiteShare(ex.HQ, 0.2, 0.5)
    plain = sites_of(None, None, sites=(share,))
    assert plain["bl-up1"].sites == (SiteQueue(4_000_000, 10_000_000, NETWORKS),)
    assert plain["bl-down1"].sites == (
        SiteQueue(10_000_000, 25_000_000, NETWORKS, is_received=True),
    )
    held = sites_of(None, None, sites=(SiteShare(ex.HQ, None, 0.09),))
    assert [queue.ceiling_bps for shaper in held.values() for queue in shaper.sites] == [
        1_800_000,
        4_500_000,
    ]
    assert sites_of(5_000_000, None, sites=(share,))["bl-up1"].sites == (
        SiteQueue(4_000_000, 10_000_000),
        SiteQueue(800_000, 5_000_000, NETWORKS, "bl-1-1", within=1),
        SiteQueue(3_200_000, 20_000_000, NETWORKS, "bl-1-2", within=1),
    )


SHARES = st.none() | st.integers(1, 40).map(lambda percent: percent / 100)


@given(
    st.lists(st.none() | st.integers(100_000, 90_000_000), min_size=2, max_size=2),
    st.lists(st.tuples(SHARES, st.integers(40, 100)), max_size=2),
    st.lists(st.just(ClassShare(ex.VOICE, 0.05)), max_size=1),
)
def test_no_more_is_guaranteed_to_sites_and_classes_than_the_line_has(downs, shares, classes):
    names = (ex.HQ, ex.BRANCH_B)
    sites = tuple(
        SiteShare(name, guarantee, percent / 100)
        for name, (guarantee, percent) in zip(names, shares, strict=False)
    )
    least_ceiling = min([share.ceiling for share in sites], default=1.0)
    for device, shaper in sites_of(*downs, sites=sites, classes=tuple(classes)).items():
        root, *others = nodes(shaper)
        below = {node.minor: node for node in (root, *others)}
        assert len(below) == len(others) + 1
        for parent in below.values():
            inside = sum(node.rate_bps for node in others if node.parent == parent.minor)
            assert inside <= parent.rate_bps + LEAST_BPS * len(others)
        others_bps = next(node for node in others if node.minor == OTHERS).rate_bps
        assert others_bps >= 0.02 * root.rate_bps, device
        assert all(node.rate_bps <= node.ceiling_bps for node in others)
        if sites and shaper.sites:
            lowest = min(queue.ceiling_bps for queue in shaper.sites)
            assert lowest <= max(LEAST_BPS, least_ceiling * root.rate_bps + 8)
        made = list(render_hierarchy(device, shaper)) if shaper.is_hierarchy else []
        assert len(made) == len(set(made))
