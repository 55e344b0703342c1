"""The shipped catalogue is sound, says where things are from, and no two applications collide."""

import tomllib
from collections.abc import Iterator
from ipaddress import ip_network
from itertools import combinations, product

import pytest

from appliance.config.catalogue import FILE, known, shipped
from appliance.config.checks import check
from appliance.config.intent import DefaultClass, Network, Protocol, is_below
from appliance.config.schema import Application, ApplicationMatch
from appliance.config.validate import validate
from appliance.config.yaml import parse_yaml
from tests.flows import FLOWS, NAMES
from tests.unit.config.files import ROOT, SOUND

ENTRIES = list(shipped().values())
EVERYWHERE = [ip_network("0.0.0.0/0"), ip_network("::/0")]
Claim = tuple[Protocol, tuple[int, int], Network]


def _claims(application: Application) -> Iterator[Claim]:
    for match in application.match:
        for protocol in match.protocol or ():
            for ports in match.ports or [(0, 65535)]:
                for network in match.destinations or EVERYWHERE:
                    yield protocol, ports, network


def _collide(one: Claim, other: Claim) -> bool:
    return (
        one[0] == other[0]
        and max(one[1][0], other[1][0]) <= min(one[1][1], other[1][1])
        and one[2].version == other[2].version
        and one[2].overlaps(other[2])  # type: ignore[arg-type] - of one family
    )


def test_the_file_is_sound_by_the_rules_for_everybody() -> None:
    document = parse_yaml(FILE.read_text())
    assert document.problems == ()
    assert isinstance(document.value, dict)
    box = parse_yaml(SOUND).value
    assert isinstance(box, dict)
    tree = {**box, "applications": document.value["applications"]}
    config, parts, findings = validate(tree)
    assert [*findings, *check(parts)] == []
    assert config is not None
    assert [each.name for each in config.applications] == list(shipped())


@pytest.mark.parametrize("application", ENTRIES, ids=lambda each: each.name)
def test_an_entry_has_a_source_a_title_and_a_way_to_be_known(application: Application) -> None:
    assert application.source
    assert all(url.startswith("https://") for url in application.source)
    assert application.title
    assert application.match or application.domains
    # Its protocol is what makes a port mean something.
    assert all(match.protocol for match in application.match)


def test_no_two_applications_claim_the_same_port() -> None:
    for one, other in combinations(ENTRIES, 2):
        both = product(_claims(one), _claims(other))
        assert not [pair for pair in both if _collide(*pair)], (one.name, other.name)


def test_the_search_for_collisions_finds_them() -> None:
    def claimed(**match: object) -> list[Claim]:
        made = ApplicationMatch.model_validate(match)
        return list(_claims(Application.model_validate({"name": "a", "match": [made]})))

    (narrow,) = claimed(protocol="udp", ports="10-20", to="192.0.2.0/24")
    anywhere = claimed(protocol="udp", ports=20)
    assert [_collide(narrow, each) for each in anywhere] == [True, False]
    assert not any(_collide(narrow, each) for each in claimed(protocol="tcp", ports=20))
    assert not any(_collide(narrow, each) for each in claimed(protocol="udp", ports=21))


def test_no_two_applications_claim_the_same_domain() -> None:
    claimed = [domain for each in ENTRIES for domain in each.domains]
    assert len(claimed) > 30
    assert len(set(claimed)) == len(claimed)


def test_what_the_box_is_for_is_there() -> None:
    by_class = {name: [e for e in ENTRIES if e.class_name is name] for name in DefaultClass}
    assert all(len(found) >= 4 for found in by_class.values())


def test_the_list_of_flows_has_every_application_that_has_ports() -> None:
    with_ports = {each.name: each.class_name.value for each in ENTRIES if each.match}
    assert {name: class_name for name, class_name, *_ in FLOWS} == with_ports


def test_the_list_of_names_has_every_domain() -> None:
    domains = [(e.name, e.class_name.value, domain) for e in ENTRIES for domain in e.domains]
    assert len(NAMES) == len(domains)
    for listed, (name, class_name, domain) in zip(NAMES, domains, strict=True):
        assert listed[:2] == (name, class_name)
        assert is_below(listed[2], domain)


def test_an_application_of_the_file_takes_the_place_of_a_shipped_one() -> None:
    own = Application.model_validate({"name": "rdp", "domains": ["rdp.example.net"]})
    assert known([own])["rdp"] is own
    assert len(known([own])) == len(shipped())
    assert len(known([own.model_copy(update={"name": "till"})])) == len(shipped()) + 1


def test_it_is_installed_with_the_program() -> None:
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = packaged["package-data"]["appliance"]
    inside = FILE.relative_to(ROOT / "appliance")
    assert [pattern for pattern in patterns if inside.match(pattern)]
