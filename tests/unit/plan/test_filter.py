"""What the table says where that is not plain from the golden plans."""

import re
from dataclasses import replace
from ipaddress import ip_interface

import pytest

from appliance.config.intent import Lan
from appliance.plan.filter import render_filter
from tests.unit.plan.examples import BRANCH

GUESTS = Lan("guests", "lan1", (ip_interface("198.51.100.1/24"),), trust_dscp=False)
TILLS = Lan("tills", "lan2", (ip_interface("203.0.113.1/24"),), trust_dscp=False)
UNTRUSTED = replace(BRANCH, lans=(*BRANCH.lans, GUESTS, TILLS))
TRANSLATION = re.compile(r"udp sport (\d+)-(\d+) masquerade to :(\d+)-(\d+)\n")
CALLS, BULK, REST = BRANCH.classes
REMARKED = replace(BRANCH, classes=(CALLS, replace(BULK, set_dscp=8), replace(REST, set_dscp=0)))


def lines(intent, *absent: str) -> list[str]:
    return [line.strip() for line in render_filter(intent, absent).text.splitlines()]


def hooks(*devices: str) -> str:
    named = ", ".join(f'"{each}"' for each in devices)
    return f"type filter hook ingress devices = {{ {named} }} priority -10; policy accept;"


def test_a_dscp_is_taken_away_before_the_fast_path_begins() -> None:
    told = lines(UNTRUSTED)
    assert hooks("lan1", "lan2") in told
    assert told[told.index("chain untrusted {") + 2 :][:3] == [
        "ip dscp set 0x00",
        "ip6 dscp set 0x00",
        "}",
    ]
    assert "chain untrusted {" not in lines(BRANCH)


def test_a_device_that_is_not_there_is_not_named_on_ingress() -> None:
    assert hooks("lan2") in lines(UNTRUSTED, "lan1")
    nothing = lines(UNTRUSTED, "lan1", "lan2")
    assert "chain untrusted {" not in nothing
    assert not [line for line in nothing if "ingress" in line and "lan1" in line]


def test_classes_with_a_dscp_of_their_own_are_remarked_and_have_no_fast_path() -> None:
    told = lines(REMARKED)
    assert (
        "meta mark and 0xf0000000 vmap { 0x20000000 : goto remark_2, 0x30000000 : goto remark_3 }"
        in told
    )
    assert told[told.index("chain remark_2 {") + 1] == "ip dscp set 0x08"
    assert told[told.index("chain remark_3 {") + 2] == "ip6 dscp set 0x00"
    (offload,) = [line for line in told if "flow add" in line]
    assert "meta mark and 0xf0000000 != { 0x20000000, 0x30000000 } flow add @fast" in offload


def test_without_one_nothing_is_remarked() -> None:
    told = lines(BRANCH)
    assert not [line for line in told if "remark" in line]
    (offload,) = [line for line in told if "flow add" in line]
    assert "meta mark" not in offload


@pytest.mark.parametrize("base", [1024, 33000, 51820, 65280])
def test_nobody_on_a_lan_leaves_by_a_port_that_tunnels_listen_on(base: int) -> None:
    """Whatever the source port, and whichever port conntrack chooses when that is taken."""
    text = render_filter(replace(BRANCH, listen_port_base=base)).text
    rules = [tuple(map(int, found)) for found in TRANSLATION.findall(text)]
    ours = set(range(base + 17, base + 256))
    for source in range(1024, 65536):
        ((low, high),) = [(lo, hi) for first, last, lo, hi in rules if first <= source <= last]
        assert 1024 <= low <= high <= 65535
        assert source in ours or low <= source <= high  # it may be kept
    assert not any(ours & set(range(low, high + 1)) for _, _, low, high in rules)
    assert text.rindex("masquerade to") < text.index("@uplinks masquerade\n")
