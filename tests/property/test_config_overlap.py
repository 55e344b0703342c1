"""The overlaps found in one sorted pass are those that comparing every pair finds."""

from ipaddress import ip_interface, ip_network
from itertools import combinations
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.config import schema
from appliance.config.errors import Path
from appliance.config.intent import Network
from appliance.config.networks import check_networks
from appliance.config.validate import Parts

untimed = settings(deadline=None)  # a busy machine is no fault of the pass


class Owned(NamedTuple):
    path: Path
    group: Path
    network: Network


# Few addresses, so that prefixes meet: 16 of IPv4 and 16 of IPv6.
networks = st.one_of(
    st.builds(
        lambda host, length: ip_network((0x0A000000 + host, length), strict=False),
        st.integers(0, 15),
        st.integers(28, 32),
    ),
    st.builds(
        lambda host, length: ip_network(((0xFD << 120) + host, length), strict=False),
        st.integers(0, 15),
        st.integers(124, 128),
    ),
)
sections = st.lists(st.lists(networks, max_size=3), max_size=4)


def _parts(lans: list[list[Network]], peers: list[list[Network]]) -> Parts:
    """Sections made without their grammars, which would refuse such narrow networks."""
    return Parts(
        site=None,
        fleet=None,
        uplinks={},
        lans={
            index: schema.Lan.model_construct(address=[ip_interface(str(n)) for n in each])
            for index, each in enumerate(lans)
        },
        peers={
            index: schema.Peer.model_construct(uplinks=[], prefixes=each)
            for index, each in enumerate(peers)
        },
        applications={},
        classes={},
        policies={},
        probing=None,
        wireguard=None,
    )


def _owned(lans: list[list[Network]], peers: list[list[Network]]) -> list[Owned]:
    """All networks in the order of the file. A LAN may overlap itself, a peer may not."""
    in_lans = [
        Owned(("lans", index, "address", place), ("lans", index), network)
        for index, each in enumerate(lans)
        for place, network in enumerate(each)
    ]
    in_peers = [
        Owned(path, path, network)
        for index, each in enumerate(peers)
        for place, network in enumerate(each)
        for path in (("peers", index, "prefixes", place),)
    ]
    return in_lans + in_peers


def _clash(one: Owned, other: Owned) -> bool:
    same_family = one.network.version == other.network.version
    return same_family and one.group != other.group and one.network.overlaps(other.network)  # type: ignore[arg-type]


@untimed
@given(sections, sections)
def test_who_is_blamed_really_overlaps_something_earlier(
    lans: list[list[Network]], peers: list[list[Network]]
) -> None:
    owned = _owned(lans, peers)
    late = {late.path for early, late in combinations(owned, 2) if _clash(early, late)}
    blamed = [finding.path for finding in check_networks(_parts(lans, peers))]
    assert set(blamed) <= late
    assert len(blamed) == len(set(blamed))
    assert bool(blamed) == bool(late)


@untimed
@given(sections, sections)
def test_without_the_blamed_nothing_overlaps(
    lans: list[list[Network]], peers: list[list[Network]]
) -> None:
    owned = _owned(lans, peers)
    blamed = {finding.path for finding in check_networks(_parts(lans, peers))}
    # Of two addresses that one LAN has in one network, blaming the first is enough.
    gone = {(each.group, each.network) for each in owned if each.path in blamed}
    left = [each for each in owned if (each.group, each.network) not in gone]
    assert [pair for pair in combinations(left, 2) if _clash(*pair)] == []
