"""The seal tells a table that somebody changed from one that nobody did."""

from appliance.kernel.nft import DRIFTED, _digest, _observed

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
