"""Our nftables tables: loaded whole by `nft`, observed with their drift, counters read directly.

Drift is seen without remembering anything: after a load the table is listed, and the digests of its
source and of its listing are put into a comment inside it, the seal. A listing that no longer fits
its seal was changed by somebody. `nft` is never on the failover path.
"""

import errno
import json
import re
import struct
from collections.abc import Sequence
from hashlib import sha256
from ipaddress import ip_address

from appliance.config.addressing import HELLOS, LEARNED, NFT_TABLE
from appliance.config.intent import Address
from appliance.kernel.kernel import KernelError
from appliance.kernel.netlink import Netlink, attribute, attributes, message
from appliance.kernel.process import Completed, ProcessError, run
from appliance.plan.plan import Delete, Filter, Key, Kind, Op

DRIFTED = Filter("drifted")
_LEARNED_NAME = re.compile(rf"{LEARNED}[0-9a-f]{{8}}_[46][ab]")
_FAMILIES = {"inet": 1, "netdev": 5}  # NFPROTO_*
_SEAL = "seal"
_LOAD_TIMEOUT_S = 60.0  # a hub's counters are thousands of objects
_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_GET_TABLE = _SUBSYSTEM | 1
_GET_GENERATION, _GET_OBJECT = _SUBSYSTEM | 16, _SUBSYSTEM | 19
_MESSAGE = struct.Struct(">BBH")  # nfgenmsg: family, version, resource
_GENERATION_ID = 1
_TABLE_NAME = 1
_OBJECT_TABLE, _OBJECT_NAME, _OBJECT_TYPE, _OBJECT_DATA = 1, 2, 3, 4
_COUNTER = struct.pack(">I", 1)  # NFT_OBJECT_COUNTER
_COUNTER_PACKETS = 2


class Nftables:
    """Loads, observes and counts."""

    def __init__(self) -> None:
        self._netlink = Netlink(_NETLINK_NETFILTER)
        self._seen: tuple[int, dict[Key, Filter]] | None = None  # at this generation

    def close(self) -> None:
        self._netlink.close()

    async def observe(self) -> dict[Key, Filter]:
        """Our tables. Listed only when any table of the box changed since the last time."""
        generation = self._generation()
        if self._seen is not None and self._seen[0] == generation:
            return dict(self._seen[1])
        found: dict[Key, Filter] = {}
        for family in _FAMILIES:
            if self._exists(family):
                found[Key(Kind.FILTER, (family, NFT_TABLE))] = _observed(await _listing(family))
        self._seen = (generation, found)
        return dict(found)

    async def apply(self, op: Op) -> None:
        """Load or remove a whole table. Raises KernelError."""
        family, name = str(op.key.ident[0]), str(op.key.ident[1])
        # Naming the table first makes deleting it right whether or not it is there.
        script = f"table {family} {name}\ndelete table {family} {name}\n"
        kept = ""
        before = self._generation()
        if isinstance(op, Delete) or not isinstance(op.item, Filter):
            await _nft(op, script)
            return
        if f"set {LEARNED}" in op.item.text and self._exists(family):
            kept = _still_learned(await self._learned(), op.item.text)
        await _nft(op, script + op.item.text + kept)
        words = f"{op.item.digest} {_digest(await _listing(family))}"
        await _nft(op, f'add set {family} {name} {_SEAL} {{ type mark; comment "{words}"; }}\n')
        if self._seen is not None and self._seen[0] == before:
            # Two changes were made, the load and the seal. When there was no other, this is known:
            # to list a hub's table once more would take a second.
            self._seen = (before + 2, {**self._seen[1], op.key: Filter(op.item.digest)})

    async def read_learned(self) -> dict[Address, frozenset[str]]:
        """Addresses that names were told for, and of which domains, by `learned_set`."""
        found: dict[Address, frozenset[str]] = {}
        for name, addresses in (await self._learned()).items():
            base = name.rpartition("_")[0]
            for address in addresses:
                found[address] = found.get(address, frozenset()) | {base}
        return found

    async def empty_learned(self, half: str) -> None:
        """Empty one set of each pair, "a" or "b"; what is in the other stays known."""
        names = [name for name in await self._learned() if name.endswith(half)]
        if names:
            await _nft(None, "".join(f"flush set inet {NFT_TABLE} {n}\n" for n in names))

    async def _learned(self) -> dict[str, tuple[Address, ...]]:
        """The sets that the name server fills. What is not an address is no element of them."""
        if not self._exists("inet"):
            return {}
        done = await _run(["nft", "-j", "list", "sets", "inet"], None)
        try:
            return parse_learned(done.stdout)
        except ValueError as error:
            raise KernelError(None, 0, str(error)) from error

    def read_counters(self, names: Sequence[str]) -> tuple[int | None, ...]:
        """Packets of each named counter of either table, None where there is none."""
        found: dict[str, int] = {}
        for family in ("netdev", "inet"):  # on a shaped uplink what is received is in the latter
            if wanted := [name for name in names if name not in found]:
                answers = self._netlink.ask([_counter_request(family, name) for name in wanted])
                for name, (payload, code) in zip(wanted, answers, strict=True):
                    if not code:
                        found[name] = _packets(payload)
        return tuple([found.get(name) for name in names])

    def _exists(self, family: str) -> bool:
        name = attribute(_TABLE_NAME, NFT_TABLE.encode() + b"\0")
        request = message(_GET_TABLE, 0, _MESSAGE.pack(_FAMILIES[family], 0, 0) + name)
        ((_, code),) = self._netlink.ask([request])
        if code not in (0, errno.ENOENT):
            raise KernelError(None, code, f"the table {family} {NFT_TABLE} cannot be asked for")
        return code == 0

    def _generation(self) -> int:
        """A number that grows with every change of any table in this network namespace."""
        ((payload, code),) = self._netlink.ask(
            [message(_GET_GENERATION, 0, _MESSAGE.pack(0, 0, 0))]
        )
        if code:
            raise KernelError(None, code, "nftables: the kernel does not have it")
        return int.from_bytes(attributes(payload, _MESSAGE.size)[_GENERATION_ID])


def _counter_request(family: str, name: str) -> bytes:
    return message(
        _GET_OBJECT,
        0,
        _MESSAGE.pack(_FAMILIES[family], 0, 0)
        + attribute(_OBJECT_TABLE, NFT_TABLE.encode() + b"\0")
        + attribute(_OBJECT_NAME, name.encode() + b"\0")
        + attribute(_OBJECT_TYPE, _COUNTER),
    )


def _packets(payload: bytes) -> int:
    counted = attributes(attributes(payload, _MESSAGE.size)[_OBJECT_DATA])
    return int.from_bytes(counted[_COUNTER_PACKETS])


async def _nft(op: Op | None, script: str) -> None:
    await _run(["nft", "-f", "-"], op, script.encode())


async def _run(argv: Sequence[str], op: Op | None, script: bytes | None = None) -> Completed:
    try:
        done = await run(argv, input=script, timeout_s=_LOAD_TIMEOUT_S)
    except ProcessError as error:
        raise KernelError(op, 0, str(error)) from error
    _check(op, done)
    return done


def parse_learned(listing: bytes) -> dict[str, tuple[Address, ...]]:
    """The addresses of each set of ours that the name server fills, out of `nft -j list sets`.

    Raises ValueError for anything else: these words are given to nft again.
    """
    found: dict[str, tuple[Address, ...]] = {}
    try:
        for each in json.loads(listing)["nftables"]:
            told = each.get("set", {})
            if told and told["table"] == NFT_TABLE and told["name"].startswith(LEARNED):
                if not _LEARNED_NAME.fullmatch(told["name"]):
                    raise ValueError(told["name"])
                found[told["name"]] = tuple(map(ip_address, told.get("elem", ())))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        msg = f"nft lists sets that make no sense: {error!r:.100}"
        raise ValueError(msg) from error
    return found


def _still_learned(learned: dict[str, tuple[Address, ...]], text: str) -> str:
    """Commands that put back into a new table what the one before had learned for it."""
    return "".join(
        f"add element inet {NFT_TABLE} {name} {{ {', '.join(map(str, addresses))} }}\n"
        for name, addresses in learned.items()
        if addresses and f"set {name} {{" in text
    )


def _check(op: Op | None, done: Completed) -> None:
    if done.status:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise KernelError(op, 0, lines[0] if lines else f"nft ended with {done.status}")


async def _listing(family: str) -> str:
    """The table, which is there: what cannot be listed is not taken for absent."""
    done = await _run(["nft", "-s", "list", "table", family, NFT_TABLE], None)
    return done.stdout.decode(errors="replace")


def _observed(listing: str) -> Filter:
    for line in listing.splitlines():
        words = line.split('"')
        if line.strip().startswith("comment ") and len(words) == 3:
            source, _, listed = words[1].partition(" ")
            if listed == _digest(listing):
                return Filter(source)
    return DRIFTED


def _digest(listing: str) -> str:
    """Of everything but the seal, what comes into sets by itself, and empty lines."""
    kept: list[str] = []
    is_seal = is_learned = False
    for line in listing.splitlines():
        if line.startswith(f"\tset {_SEAL} {{"):
            is_seal = True
        elif line.startswith((f"\tset {LEARNED}", f"\tset {HELLOS}")):
            is_learned = True
        is_element = is_learned and line.startswith(("\t\telements", "\t\t\t"))
        if line and not is_seal and not is_element:
            kept.append(line)
        if line == "\t}":
            is_seal = is_learned = False
    return sha256("\n".join(kept).encode()).hexdigest()[:16]
