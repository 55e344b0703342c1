"""A flow as texts."""

from ipaddress import ip_address

import pytest

from appliance.config.errors import Malformed
from appliance.config.flow import Flow, parse_flow
from appliance.config.intent import Protocol

V4 = ("192.0.2.9", "198.51.100.7")
V6 = ("2001:db8::9", "2001:db8:1::7")


def test_every_part_is_read() -> None:
    told = parse_flow(
        *V6, protocol="udp", port=5060, dscp="ef", lan="office", device="02:00:5E:10:00:01"
    )
    ends = map(ip_address, V6)
    assert told == Flow(*ends, Protocol.UDP, 5060, 46, "office", "02:00:5e:10:00:01")


def test_what_is_not_said() -> None:
    ends = [ip_address(text) for text in V4]
    assert parse_flow(*V4) == Flow(*ends)
    assert parse_flow(*V4, port=22) == Flow(*ends, Protocol.TCP, 22)
    assert parse_flow(*V4, protocol="esp", dscp="8") == Flow(*ends, Protocol.ESP, dscp=8)
    assert parse_flow(*V4, protocol="icmp").protocol is Protocol.ICMP


@pytest.mark.parametrize(
    ("ends", "parts", "said"),
    [
        (("host", V4[1]), {}, '"host" is no address'),
        ((V4[0], "198.51.100.0/24"), {}, '"198.51.100.0/24" is no address'),
        ((V4[0], V6[1]), {}, '"2001:db8:1::7" is not of the family of the other end'),
        (V4, {"protocol": "gre"}, '"gre" is not known here'),
        (V4, {"protocol": "tcp"}, '"tcp" needs a port'),
        (V4, {"protocol": "esp", "port": 1}, '"esp" has no ports'),
        (V4, {"protocol": "icmpv6"}, '"icmpv6" is not of IPv4'),
        (V6, {"protocol": "icmp"}, '"icmp" is not of IPv6'),
        (V4, {"port": 65536}, "65536 is no port"),
        (V4, {"port": 0}, "0 is no port"),
        (V4, {"dscp": "64"}, "64 is no DSCP"),
        (V4, {"dscp": "eff"}, '"eff" names no DSCP'),
        (V4, {"dscp": "\u0663"}, '"\u0663" names no DSCP'),
        (V4, {"lan": "Office"}, '"Office" is no name'),
        (V4, {"device": "02:00"}, '"02:00" is no MAC address'),
    ],
)
def test_what_is_wrong_is_said(ends: tuple[str, str], parts: dict, said: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_flow(*ends, **parts)
    assert str(caught.value) == said
