"""The grammars of names, quantities, choices and files."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import pytest

from appliance.config import scalars
from appliance.config.errors import Malformed
from tests.unit.config.files import KEYS


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


parse_colour = scalars.choice_of(Colour)
parse_interval = scalars.between(scalars.parse_duration, "10 ms", "10 s")
parse_loss = scalars.between(scalars.parse_ratio, "0.01 %", "50 %")
parse_rate = scalars.between(scalars.parse_rate, "100 kbit/s", "10 Gbit/s")


@pytest.mark.parametrize(
    ("parse", "value", "result"),
    [
        (scalars.parse_name, "branch-a", "branch-a"),
        (scalars.parse_name, "7", "7"),
        (scalars.parse_name, "a" * 63, "a" * 63),
        (scalars.parse_device, "eth0", "eth0"),
        (scalars.parse_device, "enp0s31f6.100", "enp0s31f6.100"),
        (scalars.parse_device, "a" * 15, "a" * 15),
        (scalars.parse_duration, "150 ms", 150_000),
        (scalars.parse_duration, "150ms", 150_000),
        (scalars.parse_duration, "1.5 s", 1_500_000),
        (scalars.parse_duration, "0.1 ms", 100),
        (scalars.parse_duration, "7 us", 7),
        (scalars.parse_duration, "2 min", 120_000_000),
        (parse_interval, "10 ms", 10_000),
        (parse_interval, "10 s", 10_000_000),
        (scalars.parse_ratio, "1 %", 0.01),
        (scalars.parse_ratio, "0.5%", 0.005),
        (parse_loss, "0.01 %", 0.0001),
        (parse_loss, "50 %", 0.5),
        (scalars.parse_dscp, "ef", 46),
        (scalars.parse_dscp, "af41", 34),
        (scalars.parse_dscp, "cs5", 40),
        (scalars.parse_dscp, "va", 44),
        (scalars.parse_dscp, 0, 0),
        (scalars.parse_dscp, 63, 63),
        (scalars.parse_domain, "a-1.example.net", "a-1.example.net"),
        (scalars.parse_url, "https://example.net/a?b=c", "https://example.net/a?b=c"),
        (scalars.parse_title, "Tills, of the shop", "Tills, of the shop"),
        (scalars.parse_mac, "02:00:5E:10:00:01", "02:00:5e:10:00:01"),
        (scalars.parse_ports, 5060, (5060, 5060)),
        (scalars.parse_ports, "10000-20000", (10000, 20000)),
        (scalars.parse_ports, "1-65535", (1, 65535)),
        (scalars.parse_public_key, KEYS[0], KEYS[0]),
        (scalars.parse_rate, "20 Mbit/s", 20_000_000),
        (scalars.parse_rate, "0.5Gbit/s", 500_000_000),
        (scalars.parse_rate, "512 kbit/s", 512_000),
        (scalars.parse_file, "hq.psk", "hq.psk"),
        (scalars.parse_file, "keys/2026/hq.psk", "keys/2026/hq.psk"),
        (parse_colour, "red", Colour.RED),
    ],
)
def test_what_is_well_formed(parse: Callable[[object], Any], value: object, result: object) -> None:
    assert parse(value) == result


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        (scalars.parse_name, "Branch"),
        (scalars.parse_name, "-a"),
        (scalars.parse_name, "a-"),
        (scalars.parse_name, ""),
        (scalars.parse_name, "a" * 64),
        (scalars.parse_name, "a\n"),
        (scalars.parse_name, 7),
        (scalars.parse_name, True),
        (scalars.parse_device, "a" * 16),
        (scalars.parse_device, "bl-1-1"),
        (scalars.parse_device, "lo"),
        (scalars.parse_device, "all"),
        (scalars.parse_device, "a/b"),
        (scalars.parse_device, "-rf"),
        (scalars.parse_device, ".."),
        (scalars.parse_device, "eth 0"),
        (scalars.parse_device, ""),
        (scalars.parse_duration, 150),
        (scalars.parse_duration, "150"),
        (scalars.parse_duration, "150  ms"),
        (scalars.parse_duration, "-1 ms"),
        (scalars.parse_duration, "1 h"),
        (scalars.parse_duration, "1 MS"),
        (scalars.parse_duration, "1e3 ms"),
        (scalars.parse_duration, ".5 s"),
        (scalars.parse_duration, "0.1 us"),
        (scalars.parse_duration, "1 ms\n"),
        (parse_interval, "9.999 ms"),
        (parse_interval, "10.001 s"),
        (scalars.parse_rate, "20"),
        (scalars.parse_rate, 20),
        (scalars.parse_rate, "20 mbit/s"),
        (scalars.parse_rate, "20 MB/s"),
        (parse_rate, "99 kbit/s"),
        (parse_rate, "10.1 Gbit/s"),
        (scalars.parse_ratio, "1"),
        (scalars.parse_ratio, 1),
        (scalars.parse_ratio, "0.01"),
        (scalars.parse_ratio, "1 percent"),
        (parse_loss, "0 %"),
        (parse_loss, "51 %"),
        (scalars.parse_dscp, "EF"),
        (scalars.parse_dscp, "af51"),
        (scalars.parse_dscp, 64),
        (scalars.parse_dscp, -1),
        (scalars.parse_dscp, True),
        (scalars.parse_dscp, 4.0),
        (scalars.parse_domain, "*.example.net"),
        (scalars.parse_domain, "example"),
        (scalars.parse_domain, "Example.net"),
        (scalars.parse_domain, "example.net."),
        (scalars.parse_domain, "a_b.example.net"),
        (scalars.parse_domain, "-a.example.net"),
        (scalars.parse_domain, ".".join(["a" * 63] * 4)),
        (scalars.parse_domain, 7),
        (scalars.parse_url, "ftp://example.net"),
        (scalars.parse_url, "https://example.net/a b"),
        (scalars.parse_title, ""),
        (scalars.parse_title, "a\nb"),
        (scalars.parse_title, "a" * 101),
        (scalars.parse_mac, "02:00:5e:10:00"),
        (scalars.parse_mac, "02-00-5e-10-00-01"),
        (scalars.parse_mac, "01:00:5e:10:00:01"),  # a group
        (scalars.parse_mac, "ff:ff:ff:ff:ff:ff"),
        (scalars.parse_mac, "00:00:00:00:00:00"),
        (scalars.parse_mac, 8846009706),  # what YAML 1.1 would read
        (scalars.parse_ports, 0),
        (scalars.parse_ports, 65536),
        (scalars.parse_ports, "20-10"),
        (scalars.parse_ports, "0-10"),
        (scalars.parse_ports, "1-65536"),
        (scalars.parse_ports, "80"),
        (scalars.parse_ports, True),
        (scalars.parse_ports, "1-2-3"),
        (scalars.parse_public_key, "AAAA"),
        (scalars.parse_public_key, KEYS[0][:-1]),
        (scalars.parse_public_key, KEYS[0][:-2] + "N="),  # one more bit than 32 octets have
        (scalars.parse_public_key, "A" * 43 + "="),
        (scalars.parse_public_key, 7),
        (scalars.parse_file, "/etc/shadow"),
        (scalars.parse_file, "../hq.psk"),
        (scalars.parse_file, "keys/../../hq.psk"),
        (scalars.parse_file, "keys/./hq.psk"),
        (scalars.parse_file, "keys//hq.psk"),
        (scalars.parse_file, "keys/"),
        (scalars.parse_file, "~/hq.psk"),
        (scalars.parse_file, "a b"),
        (scalars.parse_file, ""),
        (scalars.parse_file, "a" * 256),
        (scalars.parse_file, ["hq.psk"]),
        (parse_colour, "blue"),
        (parse_colour, 1),
    ],
)
def test_what_is_not(parse: Callable[[object], Any], value: object) -> None:
    with pytest.raises(Malformed) as caught:
        parse(value)
    assert str(caught.value)


@pytest.mark.parametrize(
    "pasted",
    [KEYS[0], KEYS[0].rstrip("="), "0123456789abcdef" * 4, "-----BEGIN PRIVATE KEY-----\nMC4C\n"],
)
def test_a_pasted_key_is_refused_and_never_repeated(pasted: str) -> None:
    with pytest.raises(Malformed) as caught:
        scalars.parse_file(pasted)
    assert "keys do not belong here" in str(caught.value)
    assert "file of its own" in caught.value.hint
    assert pasted[:8] not in str(caught.value) + caught.value.hint


def test_a_passphrase_in_place_of_a_file_is_never_repeated() -> None:
    with pytest.raises(Malformed) as caught:
        scalars.parse_file("correct horse battery staple")
    assert "horse" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    ("us", "text"), [(60_000_000, "60 s"), (50_000, "50 ms"), (1_500_000, "1500 ms"), (7, "7 us")]
)
def test_durations_are_shown_without_fractions(us: int, text: str) -> None:
    assert scalars.render_duration(us) == text
    assert scalars.parse_duration(text) == us


def test_dscp_names_have_the_numbers_of_the_registry() -> None:
    # IANA, Differentiated Services Field Codepoints
    registry = {"cs0": 0, "cs1": 8, "cs6": 48, "cs7": 56, "af11": 10, "af12": 12, "af13": 14}
    registry |= {"af21": 18, "af31": 26, "af33": 30, "af43": 38, "ef": 46, "va": 44, "le": 1}
    assert {name: scalars.DSCP[name] for name in registry} == registry
    assert len(scalars.DSCP) == 4 + 8 + 12


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("fiber", "did you mean `fibre`?"),
        ("LTE", "did you mean `lte`?"),
        ("zzz", "one of: fibre, lte"),
    ],
)
def test_the_nearest_word_is_suggested(wrong: str, hint: str) -> None:
    assert scalars.did_you_mean(wrong, ["fibre", "lte"]) == hint


def test_without_words_there_is_nothing_to_suggest() -> None:
    assert scalars.did_you_mean("x", []) == ""
