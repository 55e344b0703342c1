"""A file becomes an intent, or every reason why not."""

from ipaddress import IPv4Address, IPv4Network, ip_interface
from pathlib import Path

import pytest

from appliance.config import intent
from appliance.config.errors import ConfigError
from appliance.config.intent import Fallback, Method, Mode, Protocol, When
from appliance.config.load import load_config, parse_config
from appliance.config.yaml import MAX_OCTETS
from appliance.contract.ids import ClassName, Label, SiteName, Slot
from tests.unit.config.files import ROOT, SOUND, changed, problems_of

GOLDEN = ROOT / "tests" / "golden"
EXAMPLES = ROOT / "examples"
VOICE = ClassName("voice")


def test_everything_wrong_is_reported_at_once() -> None:
    text = (GOLDEN / "config_errors.yaml").read_text()
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "box.yaml")
    assert str(caught.value) + "\n" == (GOLDEN / "config_errors.txt").read_text()


def test_no_key_of_the_file_is_in_its_errors() -> None:
    assert "AAECAwQF" in (GOLDEN / "config_errors.yaml").read_text()
    assert "AAECAwQF" not in (GOLDEN / "config_errors.txt").read_text()


def test_the_example_of_a_branch_says_what_it_seems_to_say() -> None:
    told = load_config(EXAMPLES / "branch.yaml")
    fibre, lte = told.uplinks
    assert fibre.addresses == (ip_interface("203.0.113.2/28"), ip_interface("2001:db8:1::2/64"))
    assert (fibre.method, fibre.weight, len(fibre.targets)) == (Method.STATIC, 10, 3)
    assert (lte.method, lte.metered, lte.slot) == (Method.DHCP, True, 2)
    cloud, branch_b = told.peers
    assert cloud.preshared_key_file == "cloud.psk"
    assert branch_b.uplinks[1] == intent.PeerUplink(Slot(2), Label("lte"), (), metered=True)
    assert [each.name for each in told.classes] == ["voice", "bulk", "default"]
    voice = told.classes[0]
    assert voice.matches[1].protocols == (Protocol.UDP,)
    assert voice.matches[1].ports == ((5060, 5060), (10000, 20000))
    assert voice.matches[1].destinations == (IPv4Network("192.168.3.10/32"),)
    assert told.policy(VOICE) == intent.Policy(
        VOICE,
        ((Label("fibre"),), (Label("lte"),)),
        intent.Sla(loss_ratio=0.01, delay_us=150_000, jitter_us=30_000, mos=3.6),
    )
    bulk = told.policy(ClassName("bulk"))
    assert (bulk.fallback, bulk.metered) == (Fallback.FAIL_CLOSED, False)
    default = told.policy(ClassName("default"))
    assert (default.mode, default.tiers) == (Mode.SHARE, ((Label("fibre"), Label("lte")),))


def test_packets_leave_twice_always_unless_the_policy_says_when() -> None:
    for more, when in (("", When.ALWAYS), ("\n    when: impaired", When.IMPAIRED)):
        text = changed("    tiers: [fibre, lte]", f"    mode: duplicate{more}")
        policy = parse_config(text, "file").policy(VOICE)
        assert (policy.mode, policy.when) == (Mode.DUPLICATE, when)


def test_what_loses_a_hundredth_leaves_a_bond_unless_the_policy_says_otherwise() -> None:
    text = changed("device: eth0", "device: eth0\n    shaping: {up: 20 Mbit/s, down: 90 Mbit/s}")
    for mode, told, loss in (
        ("bond", "delay: 150 ms", 0.01),
        ("bond", "loss: 5 %, delay: 150 ms", 0.05),
        ("bond", "loss: 0.1 %, delay: 150 ms", 0.001),
        ("share", "delay: 150 ms", None),
    ):
        changes = {"tiers: [fibre, lte]": f"tiers: [fibre]\n    mode: {mode}"}
        changes["loss: 1 %, delay: 150 ms"] = told
        made = text
        for old, new in changes.items():
            made = changed(old, new, made)
        policy = parse_config(made, "file").policy(VOICE)
        assert policy.mode == mode
        assert policy.sla == intent.Sla(loss_ratio=loss, delay_us=150_000)
    bare = changed("    tiers: [fibre, lte]\n    sla: {loss: 1 %, delay: 150 ms}", "", text)
    bare = changed("class: voice\n", "class: voice\n    tiers: [fibre]\n    mode: bond\n", bare)
    assert parse_config(bare, "file").policy(VOICE).sla == intent.Sla(loss_ratio=0.01)


def test_the_examples_are_two_sites_of_one_fleet() -> None:
    branch = load_config(EXAMPLES / "branch.yaml")
    gateway = load_config(EXAMPLES / "gateway.yaml")
    assert branch.overlay == gateway.overlay
    assert branch.listen_port_base == gateway.listen_port_base
    for here, there in ((branch, gateway), (gateway, branch)):
        peer = here.peer(there.site)
        assert peer is not None
        assert peer.site_id == there.site_id
        assert [(u.slot, u.label) for u in peer.uplinks] == [
            (u.slot, u.label) for u in there.uplinks
        ]
        for seen, real in zip(peer.uplinks, there.uplinks, strict=True):
            assert seen.endpoints == tuple(address.ip for address in real.addresses)
            assert seen.metered == real.metered
        assert set(peer.prefixes) == {a.network for lan in there.lans for a in lan.addresses}
        key_of_other = peer.public_key
        assert len({p.public_key for p in here.peers}) == len(here.peers)
        assert key_of_other not in {p.public_key for p in there.peers}


def test_a_class_with_a_slot_keeps_its_number_when_another_is_put_before_it() -> None:
    def numbers(text: str) -> dict[str, int]:
        return {each.name: each.index for each in parse_config(text, "box.yaml").classes}

    video = "classes:\n  - {name: video, slot: 2, match: [{dscp: af41}]}\n"
    slotted = changed("- name: voice\n", "- name: voice\n    slot: 1\n")
    assert numbers(SOUND) == numbers(slotted) == {"voice": 1, "default": 15}
    after = numbers(changed("classes:\n", video, slotted))
    assert list(after.items()) == [("video", 2), ("voice", 1), ("default", 15)]


def test_slots_labels_and_tiers_have_defaults() -> None:
    text = changed("    tiers: [fibre, lte]\n", "")
    text = changed("name: lte,", "name: lte, slot: 7, label: mobile,", text)
    told = parse_config(text, "box.yaml")
    assert [(each.slot, each.label) for each in told.uplinks] == [(1, "fibre"), (7, "mobile")]
    assert told.policy(VOICE).tiers == (("fibre",), ("mobile",))
    assert told.policy(told.default_class.name).tiers == (("fibre",), ("mobile",))
    peer = told.peer(SiteName("branch-b"))
    assert peer is not None
    assert [each.slot for each in peer.uplinks] == [1, 2]


def test_a_shared_label_is_one_tier() -> None:
    text = changed("    tiers: [fibre, lte]\n", "")
    text = changed("name: lte,", "name: lte, label: fibre,", text)
    assert parse_config(text, "box.yaml").policy(VOICE).tiers == (("fibre",),)


def test_policies_stand_in_the_order_of_the_classes() -> None:
    text = changed("classes:\n", "classes:\n  - {name: bulk, match: [{dscp: le}]}\n")
    text = changed("policies:\n", "policies:\n  - {class: default, hold: 90 s}\n", text)
    told = parse_config(text, "box.yaml")
    assert [each.name for each in told.classes] == ["bulk", "voice", "default"]
    assert [each.index for each in told.classes] == [1, 2, 15]
    assert [each.class_name for each in told.policies] == ["bulk", "voice", "default"]
    assert [each.hold_s for each in told.policies] == [60.0, 60.0, 90.0]


def test_slower_probing_slows_what_is_idle() -> None:
    told = parse_config(changed("interval: 50 ms", "interval: 2 s"), "box.yaml").probing
    assert (told.interval_s, told.idle_interval_s, told.metered_interval_s) == (2.0, 2.0, 2.0)
    told = parse_config(changed("interval: 50 ms", "interval: 600 ms"), "box.yaml").probing
    assert (told.interval_s, told.idle_interval_s, told.metered_interval_s) == (0.6, 1.0, 0.6)


def test_one_item_needs_no_brackets() -> None:
    bare = parse_config(SOUND, "box.yaml")
    text = changed("endpoint: 198.51.100.9", "endpoint: [198.51.100.9]")
    text = changed("address: 192.168.1.1/24", "address: [192.168.1.1/24]", text)
    text = changed("dscp: ef", "dscp: [ef]", text)
    text = changed("tiers: [fibre, lte]", "tiers: [[fibre], [lte]]", text)
    text = changed("address: dhcp", "address: [dhcp]", text)
    assert parse_config(text, "box.yaml") == bare
    assert bare.peers[1].uplinks[0].endpoints == (IPv4Address("198.51.100.9"),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "box.yaml:1:1: the file is empty (begin it with `version: 1`)"),
        ("- a\n", "box.yaml:1:1: the file is not a mapping (begin it with `version: 1`)"),
        ("just words\n", "box.yaml:1:1: the file is not a mapping (begin it with `version: 1`)"),
        (
            changed("version: 1", "version: 2"),
            "box.yaml:1:1 /version: version 2 is newer than this release, which reads 1 "
            "(upgrade Branchline on the box first)",
        ),
        (
            changed("version: 1\n", ""),
            "box.yaml:1:1: `version` is missing (begin the file with `version: 1`)",
        ),
        (
            SOUND + "  fast: [",
            "box.yaml:34:3: not YAML: while parsing a block mapping, did not find "
            "expected key (check the indentation, and that every bracket and quote is closed)",
        ),
    ],
)
def test_a_file_that_cannot_be_judged_gives_one_reason(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "box.yaml")
    assert str(caught.value) == said


def test_problems_stand_in_the_order_of_the_file() -> None:
    places = [(p.line, p.column) for p in problems_of((GOLDEN / "config_errors.yaml").read_text())]
    assert places == sorted(places)
    assert len(places) > 40


def test_an_endless_list_of_problems_is_cut_and_counted() -> None:
    text = SOUND + "".join(f"key-{n}: 1\n" for n in range(1500))
    problems = problems_of(text)
    assert len(problems) == 1001
    assert problems[-1].message == "500 more from here on"
    assert problems[-1].line == problems[-2].line + 1


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "box.yaml"
    with pytest.raises(ConfigError, match=r"box\.yaml:1:1: cannot be read: No such file"):
        load_config(missing)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "box.yaml"
    path.write_bytes(b"version: 1\nsite: \xff\n")
    with pytest.raises(ConfigError, match=r"box\.yaml:2:7: not UTF-8"):
        load_config(path)


def test_a_file_without_an_end(tmp_path: Path) -> None:
    path = tmp_path / "box.yaml"
    path.write_bytes(b"#" * (MAX_OCTETS + 5))
    with pytest.raises(ConfigError, match="at most 1048576 are read"):
        load_config(path)


def test_a_file_is_read_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "box.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SOUND.replace("\n", "\r\n").encode())
    assert load_config(path) == parse_config(SOUND, "box.yaml")
