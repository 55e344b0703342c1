"""The grammars of addresses, prefixes and probe targets."""

from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from appliance.config import addresses
from appliance.config.errors import Malformed
from appliance.config.intent import Target, TargetKind


@pytest.mark.parametrize(
    ("parse", "text", "result"),
    [
        (addresses.parse_address, "192.0.2.1", ip_address("192.0.2.1")),
        (addresses.parse_address, "2001:db8::1", ip_address("2001:db8::1")),
        (addresses.parse_address, "fe80::1", ip_address("fe80::1")),
        (addresses.parse_endpoint, "192.0.2.1", ip_address("192.0.2.1")),
        (addresses.parse_interface, "192.0.2.1/24", ip_interface("192.0.2.1/24")),
        (addresses.parse_interface, "192.0.2.0/31", ip_interface("192.0.2.0/31")),
        (addresses.parse_interface, "192.0.2.1/32", ip_interface("192.0.2.1/32")),
        (addresses.parse_interface, "2001:db8::1/64", ip_interface("2001:db8::1/64")),
        (addresses.parse_interface, "2001:db8::/127", ip_interface("2001:db8::/127")),
        (addresses.parse_interface, "2001:db8::ffff/112", ip_interface("2001:db8::ffff/112")),
        (addresses.parse_uplink_address, "dhcp", None),
        (addresses.parse_uplink_address, "192.0.2.1/24", ip_interface("192.0.2.1/24")),
        (addresses.parse_network, "0.0.0.0/0", ip_network("0.0.0.0/0")),
        (addresses.parse_site_prefix, "192.0.2.0/24", ip_network("192.0.2.0/24")),
        (addresses.parse_site_prefix, "2001:db8::/32", ip_network("2001:db8::/32")),
        (addresses.parse_overlay, "fd12:3456:789a::/48", ip_network("fd12:3456:789a::/48")),
        (
            addresses.parse_target,
            "icmp 192.0.2.1",
            Target(TargetKind.ICMP, ip_address("192.0.2.1")),
        ),
        (
            addresses.parse_target,
            "dns 2001:db8::53 example.net",
            Target(TargetKind.DNS, ip_address("2001:db8::53"), 53, "example.net"),
        ),
        (
            addresses.parse_target,
            "tcp 192.0.2.80 443",
            Target(TargetKind.TCP, ip_address("192.0.2.80"), 443),
        ),
    ],
)
def test_what_is_well_formed(parse: Callable[[object], Any], text: str, result: object) -> None:
    assert parse(text) == result


@pytest.mark.parametrize(
    ("parse", "value", "said"),
    [
        (addresses.parse_address, "example.net", "names are not looked up"),
        (addresses.parse_address, "192.0.2.1/24", "without prefix length"),
        (addresses.parse_address, "192.0.2.010", "is no address"),
        (addresses.parse_address, "192.0.2.256", "is no address"),
        (addresses.parse_address, "fe80::1%eth0", "is no address"),
        (addresses.parse_address, "0.0.0.0", "not the address of one host"),
        (addresses.parse_address, "127.0.0.1", "not the address of one host"),
        (addresses.parse_address, "224.0.0.1", "not the address of one host"),
        (addresses.parse_address, "255.255.255.255", "not the address of one host"),
        (addresses.parse_address, "::", "not the address of one host"),
        (addresses.parse_address, "::1", "not the address of one host"),
        (addresses.parse_address, "ff02::1", "not the address of one host"),
        (addresses.parse_address, "::ffff:192.0.2.1", "write 192.0.2.1"),
        (addresses.parse_address, 7, "is not text"),
        (addresses.parse_endpoint, "fe80::1", "link-local"),
        (addresses.parse_endpoint, "169.254.1.1", "link-local"),
        (addresses.parse_interface, "192.0.2.1", "is no address of an interface"),
        (addresses.parse_interface, "192.0.2.1/33", "is no address of an interface"),
        (addresses.parse_interface, "192.0.2.1/255.255.255.0", "is no address of an interface"),
        (addresses.parse_interface, "192.0.2.1/-1", "is no address of an interface"),
        (addresses.parse_interface, "fe80::1%eth0/64", "is no address of an interface"),
        (addresses.parse_interface, "192.0.2.0/24", "as in 192.0.2.1/24"),
        (addresses.parse_interface, "192.0.2.255/24", "broadcast address of 192.0.2.0/24"),
        (addresses.parse_interface, "2001:db8::/64", "as in 2001:db8::1/64"),
        (addresses.parse_interface, "fe80::1/64", "the kernel makes it itself"),
        (addresses.parse_uplink_address, "static", "or the word dhcp"),
        (addresses.parse_network, "192.0.2.1/24", "did you mean 192.0.2.0/24?"),
        (addresses.parse_network, "2001:db8::1/64", "did you mean 2001:db8::/64?"),
        (addresses.parse_network, "192.0.2.0", "is no prefix"),
        (addresses.parse_network, "192.0.2.0/0.0.0.255", "is no prefix"),
        (addresses.parse_site_prefix, "0.0.0.0/0", "default route"),
        (addresses.parse_site_prefix, "::/0", "default route"),
        (addresses.parse_site_prefix, "224.0.0.0/8", "cannot lie behind a site"),
        (addresses.parse_site_prefix, "127.0.0.0/8", "cannot lie behind a site"),
        (addresses.parse_site_prefix, "fe80::/64", "cannot lie behind a site"),
        (addresses.parse_overlay, "fd12:3456:789a::/64", "/48"),
        (addresses.parse_overlay, "fc12:3456:789a::/48", "fd00::/8"),
        (addresses.parse_overlay, "2001:db8:1::/48", "fd00::/8"),
        (addresses.parse_overlay, "192.0.2.0/24", "/48"),
        (addresses.parse_overlay, "fd12:3456:789a::1/48", "/48"),
        (addresses.parse_target, "ping 192.0.2.1", "is no target"),
        (addresses.parse_target, "icmp", "is no target"),
        (addresses.parse_target, "icmp  192.0.2.1", "is no target"),
        (addresses.parse_target, "icmp 192.0.2.1 443", "is no target"),
        (addresses.parse_target, "icmp example.net", "is no address"),
        (addresses.parse_target, "icmp fe80::1", "link-local"),
        (addresses.parse_target, "dns 192.0.2.53", "is no target"),
        (addresses.parse_target, "dns 192.0.2.53 a..b", "no name to ask for"),
        (addresses.parse_target, "dns 192.0.2.53 " + "a." * 200 + "b", "no name to ask for"),
        (addresses.parse_target, "tcp 192.0.2.80 0", "no port"),
        (addresses.parse_target, "tcp 192.0.2.80 65536", "no port"),
        (addresses.parse_target, "tcp 192.0.2.80 " + "1" * 5000, "no port"),
        (addresses.parse_target, "tcp 192.0.2.80 000443999", "no port"),
        (addresses.parse_target, "tcp 192.0.2.80 https", "no port"),
        (addresses.parse_target, 7, "is not text"),
    ],
)
def test_what_is_not(parse: Callable[[object], Any], value: object, said: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse(value)
    assert said in f"{caught.value} {caught.value.hint}"
