"""Keys of gateways: who goes through whom."""

import pytest

from appliance.config.intent import Internet
from appliance.config.load import parse_config
from tests.unit.config.files import changed, problems_of

THROUGH = ("policies:\n", "policies:\n  - {class: default, internet: gateway}\n")
LISTED = ("policies:\n", "gateways: [cloud, branch-b]\npolicies:\n")


def test_gateways_and_guests() -> None:
    text = changed("prefixes: [192.168.2.0/24]", "prefixes: [192.168.2.0/24]\n    internet: true")
    text = text.replace(*THROUGH).replace(*LISTED)
    intent = parse_config(text, "box.yaml")
    assert intent.gateways == ("cloud", "branch-b")
    assert [peer.internet for peer in intent.peers] == [True, False]
    assert [p.internet for p in intent.policies][-1] is Internet.GATEWAY


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ("[clud]", "/gateways/0: there is no peer `clud`"),
        ("[cloud, cloud]", "/gateways/1: the same as /gateways/0"),
        ("[branch-a]", "/gateways/0: there is no peer `branch-a`"),
        ("[]", "/policies/0/internet: there is no gateway"),
        ("[Not/a/name]", "/gateways/0"),
    ],
)
def test_a_fault_is_named(listed: str, said: str) -> None:
    text = changed(*THROUGH).replace("policies:\n", f"gateways: {listed}\npolicies:\n")
    found = [f"{p.pointer}: {p.message}" for p in problems_of(text)]
    assert any(each.startswith(said) for each in found), found
