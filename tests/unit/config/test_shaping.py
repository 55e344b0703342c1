"""The rates of a line: given, or learned between two."""

import pytest

from appliance.config.intent import ClassShare, Shaping, SiteShare
from appliance.config.load import parse_config
from appliance.config.scalars import parse_rate, render_rate
from appliance.contract.ids import ClassName, SiteName
from tests.unit.config.files import SOUND, changed, problems_of

UPLINK = "device: eth0"


def shaped(shaping: str) -> str:
    return changed(UPLINK, f"{UPLINK}\n    shaping: {shaping}")


def read(shaping: str) -> Shaping | None:
    return parse_config(shaped(shaping), "box.yaml").uplinks[0].shaping


def test_a_rate_is_given_or_learned_between_two() -> None:
    found = read("{up: {min: 2 Mbit/s, max: 30 Mbit/s}, down: 95 Mbit/s, overhead: 30}")
    assert found == Shaping(30_000_000, 95_000_000, 30, up_least_bps=2_000_000)
    assert found.bounds("up") == (2_000_000, 30_000_000)
    assert found.bounds("down") == (95_000_000, 95_000_000)
    assert found.is_learned("up")
    assert not found.is_learned("down")


def test_equal_bounds_are_a_rate() -> None:
    same = "{min: 20 Mbit/s, max: 20 Mbit/s}"
    assert read(f"{{up: {same}, down: {same}}}") == Shaping(20_000_000, 20_000_000)
    assert parse_config(SOUND, "box.yaml").uplinks[0].shaping is None


@pytest.mark.parametrize(
    ("shaping", "said"),
    [
        (
            "{up: {min: 30 Mbit/s, max: 2 Mbit/s}, down: 95 Mbit/s}",
            "/uplinks/0/shaping/up/min: 30 Mbit/s is more than `max` (at most 2 Mbit/s)",
        ),
        (
            "{up: {min: 2 Mbit/s}, down: 95 Mbit/s}",
            "/uplinks/0/shaping/up: `max` is missing (as in `max: 60 Mbit/s`)",
        ),
        (
            "{up: fast, down: 95 Mbit/s}",
            '/uplinks/0/shaping/up: "fast" is no rate '
            "(a number and kbit/s, Mbit/s or Gbit/s: 20 Mbit/s)",
        ),
        (
            "{up: [1 Mbit/s, 2 Mbit/s], down: 95 Mbit/s}",
            "/uplinks/0/shaping/up: a list is no rate "
            "(a number and kbit/s, Mbit/s or Gbit/s: 20 Mbit/s)",
        ),
        (
            "{up: {min: 2 Mbit/s, most: 9 Mbit/s, max: 8 Mbit/s}, down: 95 Mbit/s}",
            '/uplinks/0/shaping/up/most: unknown key "most" (leave it out)',
        ),
        (
            "{up: {min: 1 kbit/s, max: 8 Mbit/s}, down: 95 Mbit/s}",
            '/uplinks/0/shaping/up/min: "1 kbit/s" is out of range (from 100 kbit/s to 10 Gbit/s)',
        ),
    ],
)
def test_what_is_wrong_is_told(shaping: str, said: str) -> None:
    (problem,) = problems_of(shaped(shaping))
    assert f"{problem.pointer}: {problem.message} ({problem.hint})" == said


@pytest.mark.parametrize("text", ["2 Mbit/s", "512 kbit/s", "10 Gbit/s", "0.001 kbit/s"])
def test_a_rate_is_written_as_it_would_be_read(text: str) -> None:
    assert render_rate(parse_rate(text)) == text


RATES = "up: 20 Mbit/s, down: 20 Mbit/s"
VOICE = "{class: voice, guarantee: 20 %}"


def test_a_class_has_a_share_of_a_line() -> None:
    found = read(f"{{{RATES}, classes: [{{class: voice, guarantee: 20 %, ceiling: 50 %}}]}}")
    assert found is not None
    assert found.shares == (ClassShare(ClassName("voice"), 0.2, 0.5),)
    capped = read(f"{{{RATES}, classes: [{{class: voice, ceiling: 50 %}}]}}")
    assert capped is not None
    assert capped.shares == (ClassShare(ClassName("voice"), 0.01, 0.5),)


def test_classes_that_are_there_by_default_may_have_one() -> None:
    bare = SOUND[: SOUND.index("classes:")]
    text = changed(
        UPLINK,
        f"{UPLINK}\n    shaping: {{{RATES}, classes: [{{class: bulk, ceiling: 9 %}}]}}",
        bare,
    )
    (uplink, _) = parse_config(text, "box.yaml").uplinks
    assert uplink.shaping is not None
    assert [share.class_name for share in uplink.shaping.shares] == ["bulk"]


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (f"[{VOICE}, {VOICE}]", "/1/class: `voice` has a share (join the two)"),
        (
            "[{class: voce, guarantee: 9 %}]",
            "/0/class: there is no class `voce` (did you mean `voice`?)",
        ),
        (
            "[{class: default, guarantee: 9 %}]",
            "/0/class: `default` has no share of its own (it gets what the others leave)",
        ),
        ("[{class: voice}]", "/0: neither `guarantee` nor `ceiling` (as in `guarantee: 40 %`)"),
        (
            "[{class: voice, guarantee: 50 %, ceiling: 40 %}]",
            "/0/ceiling: 40 % is less than what is guaranteed (at least 50 %)",
        ),
        (
            "[{class: voice, guarantee: 86 %}]",
            ": 86 % of the rate are guaranteed (85 % at most: others need the rest)",
        ),
        (
            "[{class: voice, guarantee: 0.5 %}]",
            '/0/guarantee: "0.5 %" is out of range (from 1 % to 100 %)',
        ),
    ],
)
def test_shares_that_cannot_be_are_told(classes: str, said: str) -> None:
    (problem,) = problems_of(shaped(f"{{{RATES}, classes: {classes}}}"))
    found = f"{problem.pointer}: {problem.message} ({problem.hint})"
    assert found == f"/uplinks/0/shaping/classes{said}"


def test_a_site_has_a_share_of_a_line() -> None:
    found = read(f"{{{RATES}, sites: [{{site: cloud, ceiling: 50 %}}]}}")
    assert found is not None
    assert found.sites == (SiteShare(SiteName("cloud"), None, 0.5),)
    assert not found.shares


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        (
            "sites: [{site: cloud, ceiling: 9 %}, {site: cloud, ceiling: 9 %}]",
            "sites/1/site: `cloud` has a share (join the two)",
        ),
        (
            "sites: [{site: clod, ceiling: 9 %}]",
            "sites/0/site: there is no peer `clod` (did you mean `cloud`?)",
        ),
        (
            "sites: [{site: cloud}]",
            "sites/0: neither `guarantee` nor `ceiling` (as in `guarantee: 40 %`)",
        ),
        (
            "sites: [{site: cloud, guarantee: 50 %, ceiling: 40 %}]",
            "sites/0/ceiling: 40 % is less than what is guaranteed (at least 50 %)",
        ),
        (
            "sites: [{site: cloud, guarantee: 86 %}]",
            "sites: 86 % of the rate are guaranteed (85 % at most: others need the rest)",
        ),
        (
            f"classes: [{VOICE}], sites: [{{site: cloud, guarantee: 66 %}}]",
            "classes: 86 % of the rate are guaranteed (85 % at most: others need the rest)",
        ),
    ],
)
def test_shares_of_sites_that_cannot_be_are_told(shares: str, said: str) -> None:
    (problem,) = problems_of(shaped(f"{{{RATES}, {shares}}}"))
    found = f"{problem.pointer}: {problem.message} ({problem.hint})"
    assert found == f"/uplinks/0/shaping/{said}"


def test_a_site_without_prefixes_has_no_queue() -> None:
    bare = changed("    prefixes: [192.168.2.0/24]\n", "", SOUND)
    share = changed(
        UPLINK,
        f"{UPLINK}\n    shaping: {{{RATES}, sites: [{{site: cloud, ceiling: 9 %}}]}}",
        bare,
    )
    line = changed("label: transit", "label: transit, down: 20 Mbit/s", bare)
    line = changed(UPLINK, f"{UPLINK}\n    shaping: {{{RATES}}}", line)
    for text, pointer in (
        (share, "/uplinks/0/shaping/sites/0/site"),
        (line, "/peers/0/uplinks/0/down"),
    ):
        (problem,) = problems_of(text)
        assert (problem.pointer, problem.message) == (pointer, "`cloud` has no prefixes")


def test_what_a_line_of_a_site_receives_takes_a_shaper_here() -> None:
    line = "label: transit"
    told = changed(line, f"{line}, down: 20 Mbit/s", SOUND)
    (problem,) = problems_of(told)
    assert problem.pointer == "/peers/0/uplinks/0/down"
    assert problem.message == "nothing is queued here, because no uplink has `shaping`"
    read_whole = changed(UPLINK, f"{UPLINK}\n    shaping: {{{RATES}}}", told)
    (line_there,) = parse_config(read_whole, "box.yaml").peers[0].uplinks
    assert line_there.down_bps == 20_000_000
