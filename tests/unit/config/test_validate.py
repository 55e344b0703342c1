"""The schema's findings in plain words, and what is left of a damaged file."""

from typing import Any

import pytest

from appliance.config.validate import validate
from appliance.config.yaml import parse_yaml
from tests.unit.config.files import SOUND, changed


def _tree(text: str = SOUND) -> dict[str, Any]:
    value = parse_yaml(text).value
    assert isinstance(value, dict)
    return value


def _findings(text: str) -> list[tuple[str, str, str]]:
    config, _, findings = validate(_tree(text))
    assert config is None
    return [("/".join(map(str, each.path)), each.message, each.hint) for each in findings]


def test_a_sound_file_has_no_findings() -> None:
    config, parts, findings = validate(_tree())
    assert config is not None
    assert findings == []
    assert list(parts.uplinks) == [0, 1]
    assert parts.is_whole("uplinks")


@pytest.mark.parametrize(
    ("old", "new", "path", "message", "hint"),
    [
        (
            "metered: true",
            "meterd: true",
            "uplinks/1/meterd",
            'unknown key "meterd"',
            "did you mean `metered`?",
        ),
        ("    device: eth0\n", "", "uplinks/0", "`device` is missing", "as in `device: eth0`"),
        (
            "quorum: 2",
            'quorum: "2"',
            "uplinks/0/health/quorum",
            'must be a whole number, not "2"',
            "leave the quotes out",
        ),
        (
            "quorum: 2",
            "quorum: 0",
            "uplinks/0/health/quorum",
            "must be at least 1, not 0",
            "",
        ),
        (
            "id: 1}",
            "id: 65536}",
            "site/id",
            "must be at most 65535, not 65536",
            "",
        ),
        ("id: 1}", "id: 0}", "site/id", "must be at least 1, not 0", ""),
        (
            "metered: true",
            "metered: yes",
            "uplinks/1/metered",
            'must be true or false, not "yes"',
            "",
        ),
        (
            "interval: 50 ms",
            "interval: 50",
            "probing/interval",
            "50 is no duration",
            "a number and us, ms, s or min: 150 ms",
        ),
        (
            "interval: 50 ms",
            "interval: 5 ms",
            "probing/interval",
            '"5 ms" is out of range',
            "from 10 ms to 10 s",
        ),
        (
            "delay: 150 ms}",
            "delay: 150 ms, mos: 4.6}",
            "policies/0/sla/mos",
            "must be at most 4.5, not 4.6",
            "",
        ),
        (
            "delay: 150 ms}",
            "delay: 150 ms, mos: 0.9}",
            "policies/0/sla/mos",
            "must be at least 1, not 0.9",
            "",
        ),
        (
            "delay: 150 ms}",
            "delay: 150 ms}\n    hold: 61 min",
            "policies/0/hold",
            '"61 min" is out of range',
            "from 1 s to 60 min",
        ),
        (
            "match: [{dscp: ef}]",
            "match: []",
            "classes/0/match",
            "the list is empty",
            "name at least one, or leave the key out",
        ),
        (
            "match: [{dscp: ef}]",
            "match: {dscp: ef}",
            "classes/0/match",
            "must be a list, not a mapping",
            "",
        ),
        (
            "probing: {interval: 50 ms}",
            "probing: fast",
            "probing",
            'must be a mapping of keys, not "fast"',
            "",
        ),
        (
            "probing: {interval: 50 ms}",
            "wireguard: {listen_port_base: 65281}",
            "wireguard/listen_port_base",
            "must be at most 65280, not 65281",
            "",
        ),
    ],
)
def test_findings_speak_the_words_of_the_file(
    old: str, new: str, path: str, message: str, hint: str
) -> None:
    assert _findings(changed(old, new)) == [(path, message, hint)]


def test_a_number_that_is_none_is_no_limit() -> None:
    ((path, message, _),) = _findings(changed("delay: 150 ms", "mos: .nan"))
    assert path == "policies/0/sla/mos"
    assert "finite" in message


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ("id: 2\n", "id: 2\n    preshared_key: x\n", "`preshared_key_file`"),
        ("id: 2\n", "id: 2\n    psk: x\n", "`preshared_key_file`"),
        ("id: 2\n", "id: 2\n    private_key: x\n", "keys live in files"),
        ("{interval: 50 ms}", "{key: x}", "`key_file`"),
        ("{interval: 50 ms}", "{interval: 50 ms}\nwireguard: {private_key: x}", "private_key_file"),
    ],
)
def test_a_key_inline_is_refused_with_the_place_for_it(old: str, new: str, hint: str) -> None:
    ((_, message, said),) = _findings(changed(old, new))
    assert message.startswith("unknown key")
    assert hint in said


def test_an_unknown_key_is_not_taken_for_one_that_is_there() -> None:
    ((_, _, hint),) = _findings(changed("quorum: 2", "quorum: 2\n      quorun: 2"))
    assert "quorum" not in hint


def test_what_is_sound_in_a_damaged_file_is_kept() -> None:
    text = changed("    device: eth0\n", "    device: no device at all\n    weight: 0\n")
    text = changed("device: wwan0,", "device: wwan0, weight: 256,", text)
    text = changed("overlay:", "overlai:", text)
    config, parts, findings = validate(_tree(text))
    assert config is None
    assert len(findings) == 5
    assert list(parts.uplinks) == [1]  # without its weight; the first one has no device
    assert parts.uplinks[1].weight == 1
    assert parts.fleet is None
    assert parts.site is not None
    assert len(parts.peers) == 2
    assert not parts.is_whole("uplinks")
    assert not parts.is_whole("uplinks", 0, "weight")
    assert parts.is_whole("uplinks", 1, "address")
    assert parts.is_whole("site")
    assert parts.is_whole("peers")


@pytest.mark.parametrize("junk", [7, "x", [7], {"uplinks": 7}, [None]])
def test_sections_of_a_wrong_kind_are_no_parts(junk: Any) -> None:
    tree = dict.fromkeys(_tree(), junk)
    config, parts, findings = validate(tree)
    assert config is None
    assert findings
    assert not parts.uplinks
    assert parts.site is None
