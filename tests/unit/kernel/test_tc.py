import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.kernel.kernel import KernelError
from appliance.kernel.tc import STRANGE, each_filter, each_qdisc, failures, listings
from appliance.plan.plan import Clsact, Key, Kind, Redirect, Shaper

CAKE: dict[str, Any] = {
    "kind": "cake",
    "handle": "b1:",
    "dev": "bl-up1",
    "root": True,
    "options": {
        "bandwidth": 2_375_000,
        "diffserv": "diffserv4",
        "nat": True,
        "ingress": False,
        "split_gso": True,
        "overhead": 78,
    },
}
CLSACT = {"kind": "clsact", "handle": "ffff:", "dev": "eth0", "parent": "ffff:fff1"}
PASS = {"kind": "gact", "control_action": {"type": "pass"}}
MIRRED = {
    "kind": "mirred",
    "mirred_action": "redirect",
    "direction": "egress",
    "to_dev": "bl-up1",
    "control_action": {"type": "stolen"},
}
KEYS = {"eth_type": "ipv4", "ip_proto": "udp", "src_port": {"start": 51837, "end": 51838}}


def filtered(kind: str = "matchall", pref: int = 45314, **options: Any) -> dict[str, Any]:
    return {"protocol": "ip", "pref": pref, "kind": kind, "chain": 0, "options": options}


def one(entry: dict[str, Any], hook: str = "egress") -> object:
    ((key, item),) = each_filter("eth0", hook, [entry])
    assert key == Key(Kind.REDIRECT, ("eth0", hook, entry["pref"]))
    return item


def test_shapers_and_clsact_are_seen_and_other_qdiscs_are_not():
    noqueue = {"kind": "noqueue", "handle": "0:", "dev": "lo", "root": True, "options": {}}
    foreign = [{**CAKE, "dev": "eth0"}, {**CAKE, "handle": "8001:"}]
    assert dict(each_qdisc([noqueue, CAKE, CLSACT, *foreign])) == {
        Key(Kind.SHAPER, ("bl-up1",)): Shaper(19_000_000, 78, is_ingress=False),
        Key(Kind.CLSACT, ("eth0",)): Clsact(),
    }


def test_a_shaper_that_cuts_nothing_up_is_seen():
    ((_, seen),) = each_qdisc([{**CAKE, "options": {**CAKE["options"], "split_gso": False}}])
    assert seen == Shaper(19_000_000, 78, is_ingress=False, keeps_gso=True)


@pytest.mark.parametrize(
    "changed", [{"diffserv": "besteffort"}, {"nat": False}, {"bandwidth": "unlimited"}]
)
def test_a_shaper_that_somebody_changed_is_another(changed):
    ((_, seen),) = each_qdisc([{**CAKE, "options": {**CAKE["options"], **changed}}])
    assert seen == Shaper(0, 0, is_ingress=False)


def test_filters_are_seen_as_they_were_planned():
    assert one(filtered(actions=[MIRRED])) == Redirect("ip", "bl-up1")
    flower = filtered("flower", 45312, keys=KEYS, actions=[PASS])
    assert one(flower) == Redirect("ip", None, (51837, 51838))
    single = filtered("flower", 45312, keys={**KEYS, "src_port": 51837}, actions=[PASS])
    assert one(single) == Redirect("ip", None, (51837, 51837))


@pytest.mark.parametrize(
    "entry",
    [
        filtered("flower", 45312, keys={**KEYS, "dst_ip": "192.0.2.1"}, actions=[PASS]),
        filtered("flower", 45312, keys={**KEYS, "ip_proto": "tcp"}, actions=[PASS]),
        filtered("u32", actions=[MIRRED]),
        filtered(actions=[]),
        filtered(actions=[MIRRED, PASS]),
        filtered(actions=[{**MIRRED, "mirred_action": "mirror"}]),
        filtered(actions=[{"kind": "gact", "control_action": {"type": "drop"}}]),
        filtered(actions="none"),
    ],
)
def test_a_filter_that_somebody_changed_is_another(entry):
    assert one(entry) == Redirect("ip", STRANGE)


CTINFO = {"kind": "ctinfo", "zone": 0, "cpmark": "0xf0000000"}


def test_a_filter_that_marks_first_is_seen_and_no_other_marks():
    assert one(filtered(actions=[CTINFO, MIRRED])) == Redirect("ip", "bl-up1", is_marked=True)
    for wrong in (
        [{**CTINFO, "cpmark": "0xffffffff"}, MIRRED],
        [{**CTINFO, "zone": 7}, MIRRED],
        [CTINFO, CTINFO, MIRRED],
        [MIRRED, CTINFO],
        [CTINFO, PASS],
        [CTINFO],
    ):
        assert one(filtered(actions=wrong)) == Redirect("ip", STRANGE)


def test_a_filter_beside_ours_makes_both_another():
    twice = [filtered(actions=[MIRRED]), filtered(actions=[PASS])]
    assert {item for _, item in each_filter("eth0", "egress", twice)} == {Redirect("ip", STRANGE)}


def test_filters_of_others_and_heads_of_priorities_are_passed_over():
    head = {"protocol": "ip", "pref": 45314, "kind": "matchall", "chain": 0}
    others = [filtered(pref=n, actions=[PASS]) for n in (1, 45311, 45568, 49152)]
    assert not list(each_filter("eth0", "egress", [head, *others]))


def test_answers_are_told_apart():
    text = json.dumps([CAKE]) + "\n[]\n\n" + json.dumps([CLSACT])
    assert listings(text, 3) == [[CAKE], [], [CLSACT]]
    for wrong in ("", "[]", text + "[]", "[{]", "null", "[" * 100_000):
        with pytest.raises(KernelError):
            listings(wrong, 3)


def test_what_failed_is_told_by_line():
    told = (
        "RTNETLINK answers: File exists\nWe have an error talking to the kernel\n"
        'Command failed -:3\nCannot find device "bl-up9"\nCommand failed -:12\n'
    )
    assert list(failures(told)) == [
        (3, "RTNETLINK answers: File exists: We have an error talking to the kernel"),
        (12, 'Cannot find device "bl-up9"'),
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "kind",
                    "dev",
                    "handle",
                    "pref",
                    "options",
                    "keys",
                    "actions",
                    "src_port",
                    "to_dev",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
)


@given(st.lists(JSON, max_size=4))
def test_no_listing_breaks_the_reading(values):
    (listing,) = listings(json.dumps(values), 1)
    list(each_qdisc(listing))
    list(each_filter("eth0", "egress", listing))


@given(st.text(max_size=200))
def test_no_output_breaks_the_reading(text):
    list(failures(text))
    try:
        listings(text, 1)
    except KernelError:
        return
