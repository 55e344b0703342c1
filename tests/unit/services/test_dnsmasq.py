"""What dnsmasq is told: for whom, whom to ask, and where the addresses of a name belong."""

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from appliance.config.addressing import learned_sets
from appliance.config.intent import Intent, Match
from appliance.contract.ids import Slot
from appliance.core.events import UplinkFacts
from appliance.core.state import UplinkState
from appliance.services.dnsmasq import configuration, program, servers
from tests.unit.plan.examples import BRANCH

SERVERS = Path("/run/branchline/dns.servers")
PROVIDER, PROVIDER6 = ip_address("198.51.100.53"), ip_address("2001:db8::53")
V4, V6 = ip_address("203.0.113.1"), ip_address("fe80::1")


def asking(*matches: Match) -> Intent:
    voice = replace(BRANCH.classes[0], matches=matches)
    lan = replace(BRANCH.lans[0], dns=True)
    return replace(BRANCH, lans=(lan, *BRANCH.lans[1:]), classes=(voice, BRANCH.default_class))


def working(*told: object, slot: int = 1, condemned_at: float | None = None) -> UplinkState:
    facts = UplinkFacts(
        Slot(slot),
        True,
        True,
        BRANCH.lans[0].addresses,
        (V4, V6),
        tuple(told),  # type: ignore[arg-type]
    )
    return UplinkState(facts, condemned_at=condemned_at)


def test_nobody_who_may_ask_is_no_name_server() -> None:
    assert configuration(BRANCH, SERVERS) is None


def test_it_listens_in_lans_that_ask_and_nowhere_else() -> None:
    lines = (configuration(asking(), SERVERS) or "").splitlines()
    assert [line for line in lines if line.startswith("listen-address")] == [
        f"listen-address={address.ip}" for address in BRANCH.lans[0].addresses
    ]
    assert "bind-dynamic" in lines
    assert not [line for line in lines if line.startswith(("interface", "user", "server="))]
    assert f"servers-file={SERVERS}" in lines


def test_a_domain_fills_its_own_sets_and_those_of_the_domains_above_it() -> None:
    above, below = ("example.net", "example.com"), ("mail.example.net",)
    intent = asking(Match(domains=above), Match(domains=below), Match(domains=above))
    text = configuration(intent, SERVERS) or ""
    told = dict(line.split("/")[1:] for line in text.splitlines() if line.startswith("nftset="))

    def sets(*domains: tuple[str, ...]) -> str:
        return ",".join(
            f"{version}#inet#branchline#{name}"
            for each in domains
            for version in (4, 6)
            for name in learned_sets(each, version)
        )

    assert told == {
        "example.net": sets(above),
        "example.com": sets(above),
        "mail.example.net": sets(above, below),
    }


def test_a_line_has_room_for_the_longest_domain_in_five_lists() -> None:
    longest = ".".join(["a" * 60] * 4)[:253]
    lists = [Match(domains=(longest, f"{n}.example.net")) for n in range(5)]
    text = configuration(asking(*lists), SERVERS) or ""
    assert 700 < max(map(len, text.splitlines())) < 1024


@pytest.mark.parametrize(
    ("configured", "uplinks", "found"),
    [
        ((), {1: working(PROVIDER, PROVIDER6)}, ["198.51.100.53@{0}", "2001:db8::53@{0}"]),
        ((), {1: working(PROVIDER), 2: working(PROVIDER, slot=2)}, ["198.51.100.53@{0}"]),
        ((), {1: working(PROVIDER, condemned_at=1.0), 2: working(slot=2)}, []),
        ((), {}, []),
        # When only the metered uplink works, it is asked over that.
        (
            (PROVIDER6,),
            {1: working(condemned_at=1.0), 2: working(slot=2)},
            ["2001:db8::53@{1}"],
        ),
        # Servers of a site and of a LAN are reached as anybody there.
        (
            (ip_address("192.168.3.53"), PROVIDER),
            {1: working()},
            ["192.168.3.53", "198.51.100.53@{0}"],
        ),
        ((ip_address("192.168.3.53"),), {}, ["192.168.3.53"]),
    ],
)
def test_whom_it_asks(configured: tuple, uplinks: dict, found: list[str]) -> None:
    fibre, lte = (replace(BRANCH.uplinks[n], metered=n == 1) for n in (0, 1))
    intent = replace(BRANCH, uplinks=(fibre, lte), name_servers=configured)
    lines = servers(intent, {Slot(slot): state for slot, state in uplinks.items()}).splitlines()
    assert lines == [f"server={each.format(fibre.device, lte.device)}" for each in found]


def test_it_runs_with_no_right_that_it_does_not_need() -> None:
    argv = program(Path("/run/dns.conf"), "", is_root=False).argv
    rights = "-all,+net_admin,+net_bind_service,+net_raw"
    assert argv[:3] == ("setpriv", f"--ambient-caps={rights}", f"--inh-caps={rights}")
    assert argv[3] == "dnsmasq"


def test_an_uplink_without_a_family_is_not_asked_over_in_it() -> None:
    facts = UplinkFacts(Slot(1), True, True, BRANCH.lans[0].addresses, (V4,))
    intent = replace(BRANCH, name_servers=(PROVIDER, PROVIDER6))
    assert servers(intent, {Slot(1): UplinkState(facts)}) == (
        f"server=198.51.100.53@{BRANCH.uplinks[0].device}\n"
    )
