"""A lease that lies in a LAN or behind a site is told, and nothing else."""

from dataclasses import replace
from ipaddress import ip_interface

import pytest

from appliance.config.intent import Intent, Interface, Method
from appliance.supervisor.overlaps import Overlaps
from appliance.supervisor.warnings import Warnings
from tests.unit.plan.examples import BRANCH

LEASED = replace(BRANCH, uplinks=tuple(replace(u, method=Method.DHCP) for u in BRANCH.uplinks))
FIRST, SECOND = (uplink.device for uplink in BRANCH.uplinks)
LAN = BRANCH.lans[0].addresses[0].network
PREFIX = next(p for p in BRANCH.peers[0].prefixes if p.version == 4)
ELSEWHERE = ip_interface("100.64.0.9/16")


def inside(network) -> Interface:
    return ip_interface((network[9], network.prefixlen))


class Box:
    """What warns, and what it warned of."""

    def __init__(self) -> None:
        self.warnings = Warnings()
        self.overlaps = Overlaps(self.warnings)

    def follow(self, intent: Intent, *first: Interface, second: Interface = ELSEWHERE) -> list[str]:
        """The subjects of all warnings, with these addresses on the uplinks."""
        self.overlaps.follow(intent, {FIRST: first, SECOND: (second,), "lan0": (inside(LAN),)})
        assert {row.code for row in self.warnings.standing} <= {"lease-overlaps"}
        return [row.subject for row in self.warnings.standing]


@pytest.mark.parametrize(
    ("network", "whose"), [(LAN, "the LAN office"), (PREFIX, f"the site {BRANCH.peers[0].name}")]
)
def test_a_lease_from_a_network_of_ours_is_told_until_there_is_another(network, whose):
    box = Box()
    assert box.follow(LEASED, ELSEWHERE) == []
    lease = inside(network)
    assert box.follow(LEASED, ELSEWHERE, lease) == [FIRST]
    (row,) = box.warnings.standing
    assert f"{lease} was leased on {FIRST}, which overlaps {network} of {whose}" in row.text
    assert box.follow(LEASED, ELSEWHERE) == []


def test_a_wider_network_overlaps_too():
    wide = ip_interface((LAN[9], LAN.prefixlen - 4))
    assert Box().follow(LEASED, second=wide) == [SECOND]


def test_another_configuration_is_looked_at_anew():
    box = Box()
    lease = inside(LAN)
    assert box.follow(LEASED, lease) == [FIRST]
    assert box.follow(replace(LEASED, lans=()), lease) == []
    assert box.follow(LEASED, lease) == [FIRST]
    assert box.follow(replace(LEASED, uplinks=LEASED.uplinks[1:]), lease) == []


def test_a_configured_address_has_been_checked_with_the_configuration():
    assert Box().follow(BRANCH, inside(LAN)) == []
