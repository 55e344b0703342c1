"""Hands on the real kernel: what a person with `ip`, `wg` and `nft` would do."""

import time
from base64 import b64encode
from ipaddress import ip_address
from subprocess import run

from nacl.bindings import crypto_scalarmult_base

from appliance.config.addressing import ROUTE_PROTOCOL
from appliance.config.intent import Address
from appliance.kernel.keys import Keys, digest
from appliance.kernel.linux import LinuxKernel
from appliance.plan.plan import Add, Bond, Copy, Delete, Item, Key, Kind, Once
from appliance.plan.text import render_op

PRIVATE = bytes([8, *range(1, 31), 64])
FAR_PRIVATE = bytes([16, *range(1, 31), 64])
FAR_DEVICE, FAR_PORT = "far0", 51999
PRESHARED = bytes(range(32))
OURS = f"proto {ROUTE_PROTOCOL}"


def _public(private: bytes) -> str:
    return b64encode(crypto_scalarmult_base(private)).decode()


def shell(command: str, *, check: bool = True) -> str:
    done = run(["sh", "-c", command], capture_output=True, text=True, check=False)
    if check and done.returncode:
        message = f"{command}: {done.stderr}"
        raise AssertionError(message)
    return done.stdout


class RealWorld:
    """The hands of somebody with `ip`, `wg` and `nft`."""

    def __init__(self) -> None:
        self.public_key = _public(PRIVATE)
        self.far_key = _public(FAR_PRIVATE)
        self.keys = Keys(self.public_key, {}, PRIVATE, {digest(PRESHARED): PRESHARED})
        self.kernel = LinuxKernel(self.keys)

    def remove(self, key: Key) -> None:
        name, *rest = key.ident
        family = 6 if any(":" in str(r) for r in rest) else 4
        match key.kind:
            case Kind.DEVICE:
                shell(f"ip link del {name}")
            case Kind.NEXTHOP | Kind.GROUP:
                shell(f"ip nexthop del id {name}")
            case Kind.PEER:
                shell(f"wg set {name} peer {rest[0]} remove")
            case Kind.ADDRESS:
                shell(f"ip address del {rest[0]} dev {name}")
            case Kind.ROUTE:
                shell(f"ip -{family} route del {rest[0]} table {name} metric {rest[1]}")
            case Kind.RULE:
                shell(f"ip -{name} rule del pref {rest[0]}")
            case Kind.SHAPER:
                shell(f"tc qdisc del dev {name} root")
            case Kind.REDIRECT:
                shell(f"tc filter del dev {name} {rest[0]} pref {rest[1]}")
            case Kind.ONCE:
                shell(render_op(Delete(key, Once(""))))
            case Kind.COPY:
                shell(render_op(Delete(key, Copy(None, ""))))
            case Kind.BOND:
                shell(render_op(Delete(key, Bond(""))))
            case Kind.FILTER:
                shell(f"nft delete table {name} {rest[0]}")
            case _:
                raise ValueError(key.kind)

    def put_foreign(self, key: Key, item: Item) -> None:
        shell(render_op(Add(key, item)).replace(OURS, "").replace(f"protocol {ROUTE_PROTOCOL}", ""))

    def drift(self, key: Key) -> None:
        shell(f"nft add chain {key.ident[0]} {key.ident[1]} stranger")

    def roam(self, key: Key) -> tuple[Address, int]:
        """The far end is a device here, too; its keep-alive asks for a handshake."""
        device = key.ident[0]
        port = shell(f"wg show {device} listen-port").strip()
        private = b64encode(FAR_PRIVATE).decode()
        shell(
            f"ip link add {FAR_DEVICE} type wireguard; ip link set {FAR_DEVICE} up; "
            f"echo {private} | wg set {FAR_DEVICE} listen-port {FAR_PORT} "
            "private-key /proc/self/fd/0 "
            f"peer {self.public_key} endpoint 127.0.0.1:{port} persistent-keepalive 1"
        )
        deadline = time.monotonic() + 5
        while f"127.0.0.1:{FAR_PORT}" not in shell(f"wg show {device} dump") or not int(
            shell(f"wg show {device} latest-handshakes | grep {self.far_key} | cut -f 2")
        ):
            assert time.monotonic() < deadline, shell(f"wg show {device}; wg show {FAR_DEVICE}")
            time.sleep(0.01)
        shell(f"ip link del {FAR_DEVICE}")  # so that it is not heard again
        return ip_address("127.0.0.1"), FAR_PORT

    def has_foreign(self, key: Key) -> bool:
        name, *rest = key.ident
        match key.kind:
            case Kind.ROUTE:
                return bool(shell(f"ip route show {rest[0]} table {name} metric {rest[1]}"))
            case Kind.RULE:
                return bool(shell(f"ip rule show pref {rest[0]}"))
            case Kind.NEXTHOP:
                return bool(shell(f"ip nexthop show id {name}"))
            case Kind.ADDRESS:
                return str(rest[0]) in shell(f"ip address show dev {name}")
            case _:
                raise ValueError(key.kind)


def clean() -> None:
    """Back to a box on which nothing of ours ever ran."""
    shell(
        "nft flush ruleset; ip nexthop flush; ip link set lo up; "
        "for f in 4 6; do ip -$f rule flush; ip -$f rule add pref 32766 lookup main; "
        f"ip -$f route flush table all {OURS}; done; "
        "ip rule add pref 32767 lookup default; "
        "for d in $(ls /sys/class/net); do ip link del $d; done; "
        "for d in eth0 wwan0 lan0; do ip link add $d type dummy; ip link set $d up; done; "
        "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0",
        check=False,
    )
