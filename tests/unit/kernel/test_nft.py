"""The seal tells a table that somebody changed from one that nobody did."""

import json
from ipaddress import ip_address

import pytest

from appliance.kernel import nft
from appliance.kernel.kernel import KernelError
from appliance.kernel.nft import (
    DRIFTED,
    Nftables,
    _digest,
    _observed,
    _still_learned,
    parse_learned,
)
from appliance.kernel.process import Completed
from appliance.plan.filter import FILTER_KEY

TABLE = """table inet branchline {
\tset lans {
\t\ttype ifname
\t\telements = { "lan0" }
\t}

%s\tchain input {
\t\ttype filter hook input priority filter; policy drop;
\t}
}
"""
SEAL = '\tset seal {\n\t\ttype mark\n\t\tcomment "%s"\n\t}\n\n'


def sealed(source, listing=TABLE % ""):
    return TABLE % (SEAL % f"{source} {_digest(listing)}")


def test_a_sealed_table_says_what_it_was_made_of():
    assert _observed(sealed("0123456789abcdef")).digest == "0123456789abcdef"


def test_the_seal_is_no_part_of_what_it_seals():
    assert _digest(sealed("x")) == _digest(TABLE % "")


def test_a_table_without_a_seal_or_with_a_stale_one_has_drifted():
    assert _observed(TABLE % "") == DRIFTED
    changed = sealed("x").replace("policy drop", "policy accept")
    assert _observed(changed) == DRIFTED
    more = sealed("x").replace("\tchain input", "\tchain stranger {\n\t}\n\tchain input")
    assert _observed(more) == DRIFTED


async def test_a_table_that_cannot_be_listed_is_not_taken_for_absent(monkeypatch):
    """It would be loaded anew, and cached as absent until something changes."""
    answers = {
        "inet": [
            Completed(1, b"", b"netlink: Error: cache initialization failed: Too many links\n"),
            Completed(0, sealed("0123").encode(), b""),
        ]
    }

    async def run(argv, **_):
        return answers[argv[4]].pop(0)

    monkeypatch.setattr(nft, "run", run)
    tables = Nftables()
    monkeypatch.setattr(tables, "_generation", lambda: 7)
    monkeypatch.setattr(tables, "_exists", answers.__contains__)
    with pytest.raises(KernelError, match="cache initialization failed"):
        await tables.observe()
    assert (await tables.observe())[FILTER_KEY].digest == "0123"
    tables.close()


LEARNED = """\tset names_0123abcd_4a {
\t\ttype ipv4_addr
\t\tsize 16384%s
\t}

"""
ELEMENTS = """
\t\telements = { 192.0.2.1, 192.0.2.2,
\t\t\t     192.0.2.3 }"""


def test_what_the_name_server_learns_is_no_drift():
    empty, full = (TABLE % (LEARNED % elements) for elements in ("", ELEMENTS))
    assert _digest(empty) == _digest(full)
    assert _digest(empty) != _digest(TABLE % "")
    assert _digest(empty) != _digest(empty.replace("16384", "16385"))
    by_hand = TABLE.replace('"lan0"', '"lan0",\n\t\t\t     "lan1"')
    assert _digest(by_hand % "") != _digest(TABLE % "")


def listed(*sets):
    return json.dumps({"nftables": [{"metainfo": {}}, *({"set": each} for each in sets)]}).encode()


OURS = {"family": "inet", "table": "branchline", "name": "names_0123abcd_4a"}


def test_learned_addresses_are_read():
    assert parse_learned(
        listed(
            {**OURS, "elem": ["192.0.2.1", "192.0.2.2"]},
            {**OURS, "name": "names_0123abcd_6b", "elem": ["2001:db8::1"]},
            {**OURS, "name": "names_0123abcd_6a"},
            {**OURS, "name": "own", "elem": ["2001:db8::2"]},
            {**OURS, "table": "theirs", "elem": [{"prefix": {}}]},
        )
    ) == {
        "names_0123abcd_4a": (ip_address("192.0.2.1"), ip_address("192.0.2.2")),
        "names_0123abcd_6b": (ip_address("2001:db8::1"),),
        "names_0123abcd_6a": (),
    }


@pytest.mark.parametrize(
    "listing",
    [
        *(b"", b"[]", b"{}", b"\xff", b'{"nftables": [1]}', b"[" * 100_000),
        listed({**OURS, "elem": ["192.0.2.1; flush ruleset"]}),
        listed({**OURS, "elem": [{"elem": {"val": "192.0.2.1"}}]}),
        listed({**OURS, "elem": 7}),
        listed({**OURS, "name": "names_; flush ruleset", "elem": ["192.0.2.1"]}),
        listed({"table": "branchline"}),
    ],
)
def test_a_listing_that_makes_no_sense_is_refused(listing):
    with pytest.raises(ValueError, match="nft"):
        parse_learned(listing)


def test_another_table_keeps_what_it_still_asks_for():
    learned = {
        "names_0123abcd_4a": (ip_address("192.0.2.1"), ip_address("192.0.2.2")),
        "names_0123abcd_4b": (),
        "names_ffffffff_4a": (ip_address("192.0.2.3"),),
    }
    text = "set names_0123abcd_4a {\n}\nset names_0123abcd_4b {\n}\n"
    assert _still_learned(learned, text) == (
        "add element inet branchline names_0123abcd_4a { 192.0.2.1, 192.0.2.2 }\n"
    )
