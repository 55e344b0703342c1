"""The seal tells a table that somebody changed from one that nobody did."""

import pytest

from appliance.kernel import nft
from appliance.kernel.kernel import KernelError
from appliance.kernel.nft import DRIFTED, Nftables, _digest, _observed
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
