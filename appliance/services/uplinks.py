"""Follows the uplinks: what configuration, netlink and leases say of each becomes UplinkFacts.

It decides what is a fact about an uplink; it must not decide whether the uplink is any good. An
uplink that appears, disappears, is renamed or gets other addresses is one change of its facts.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

from appliance import clock
from appliance.config.intent import Interface, Method, Uplink
from appliance.contract.ids import Slot
from appliance.core.events import UplinkChanged, UplinkFacts
from appliance.services.dhcp import (
    RETRY_S,
    DhcpClient,
    leases_directory,
    read_leases,
    release,
    served_devices,
)
from appliance.services.lease import LeaseFacts
from appliance.services.watch import watching

log = logging.getLogger(__name__)

NO_LEASES = LeaseFacts()


@dataclass(frozen=True, slots=True)
class Link:
    """A network device as netlink tells of it. The index stays when the name changes."""

    index: int
    name: str
    has_carrier: bool  # IFF_UP and IFF_LOWER_UP


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """An address of a device that a new packet may have as its source.

    That is: of global scope, not tentative, and not a deprecated IPv6 address. (The kernel calls an
    IPv4 address deprecated from the rebinding time of its lease on, and uses it as before.)
    """

    index: int
    interface: Interface


def merge(
    uplink: Uplink,
    link: Link | None,
    addresses: Iterable[LinkAddress] = (),
    leases: LeaseFacts = NO_LEASES,
) -> UplinkFacts:
    """The facts of one uplink. `addresses` are those of `link`, `leases` what has not run out.

    A gateway that was leased counts while the device has an address to reach it from: the address
    of the lease itself for IPv4, any for IPv6. One that would be ourselves does not count.
    """
    if link is None:
        return UplinkFacts(uplink.slot)
    usable = tuple(sorted((a.interface for a in addresses), key=_order))
    own = {interface.ip for interface in usable}
    gateways = uplink.gateways if uplink.method is Method.STATIC else leases.gateways
    kept = []
    for gateway in gateways:
        if uplink.method is Method.DHCP and isinstance(gateway, IPv4Address):
            reachable = leases.lease4 is not None and leases.lease4.address.ip in own
        else:
            reachable = any(i.version == gateway.version for i in usable)
        if reachable and gateway not in own:
            kept.append(gateway)
    servers = leases.name_servers if uplink.method is Method.DHCP else ()
    return UplinkFacts(uplink.slot, True, link.has_carrier, usable, tuple(kept), servers)


class Uplinks:
    """Keeps the facts of all uplinks and emits each change. Call from one event loop.

    `directory` is the run directory, with a place for leases, which must survive the supervisor and
    not the boot. `jitter` yields numbers in 0..1. `warn` takes a device and what keeps its DHCP
    client from working, or None. Nothing is emitted before the first `resync`.
    """

    def __init__(
        self,
        uplinks: Sequence[Uplink],
        directory: Path,
        emit: Callable[[UplinkChanged], None],
        jitter: Callable[[], float],
        warn: Callable[[str, str | None], None] = lambda _device, _trouble: None,
    ) -> None:
        self._warn = warn
        self._uplinks = tuple(uplinks)
        self._directory = directory
        self._emit = emit
        self._jitter = jitter
        self._links: dict[int, Link] = {}
        self._addresses: dict[int, tuple[LinkAddress, ...]] = {}
        self._leases: dict[str, LeaseFacts] = {}
        self._clients: dict[str, DhcpClient] = {}
        self._kept: set[str] = set()  # devices of earlier configurations, which may come back
        self._told: dict[Slot, UplinkFacts] = {}
        self._is_synced = False
        self._timer: asyncio.TimerHandle | None = None
        self._reconfigured = asyncio.Event()

    # -- what happens ---------------------------------------------------------------------------

    def resync(self, links: Iterable[Link], addresses: Iterable[LinkAddress]) -> None:
        """All that there is: at the start, and after every notice."""
        self._links = {link.index: link for link in links}
        self._addresses = {}
        for address in addresses:
            found = self._addresses.get(address.index, ())
            self._addresses[address.index] = (*found, address)
        self._is_synced = True
        # The first facts of a starting supervisor need the gateways, or routes would go and come.
        self._read_leases()

    def link_changed(self, link: Link) -> None:
        """A notice, ahead of the next `resync`: a lost carrier must not wait for that."""
        self._links[link.index] = link
        self._update()

    def link_gone(self, index: int) -> None:
        self._links.pop(index, None)
        self._addresses.pop(index, None)
        self._update()

    def reconfigure(self, uplinks: Sequence[Uplink]) -> None:
        """Follow another configuration. Leases that it does not name stay until `release_others`.

        It may still be refused, and the one before needs its leases then.
        """
        self._kept |= {uplink.device for uplink in self._uplinks}
        before = {(uplink.slot, uplink.device) for uplink in self._uplinks}
        self._uplinks = tuple(uplinks)
        # Of another device everything is news, even if it looks just like the one before.
        same = {u.slot for u in uplinks if (u.slot, u.device) in before}
        self._told = {slot: facts for slot, facts in self._told.items() if slot in same}
        self._reconfigured.set()
        self._read_leases()

    def release_others(self) -> None:
        """The configuration is in force: give up the leases that it does not name."""
        if self._kept:
            self._kept.clear()
            self._reconfigured.set()

    # -- the rim --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run a DHCP client for each uplink that wants one. Cancelling leaves them all running."""
        with watching(leases_directory(self._directory), self._read_leases):
            self._read_leases()
            async with asyncio.TaskGroup() as group:
                tasks: dict[str, asyncio.Task[None]] = {}
                left: set[str] = set()  # devices of which something remains
                while True:
                    self._reconfigured.clear()
                    wanted = {u.device for u in self._uplinks if u.method is Method.DHCP}
                    served = served_devices(self._directory) | set(tasks) | left
                    left = set()
                    for device in served - wanted - self._kept:
                        if device in tasks:
                            tasks.pop(device).cancel()
                            del self._clients[device]
                        if not await self._is_released(device):
                            left.add(device)
                    for device in sorted(wanted - set(tasks)):
                        client = DhcpClient(
                            device, self._directory, self._jitter, partial(self._warn, device)
                        )
                        self._clients[device] = client
                        tasks[device] = group.create_task(client.run(), name=f"dhcp {device}")
                    self._update()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(RETRY_S if left else None):
                            await self._reconfigured.wait()

    async def _is_released(self, device: str) -> bool:
        try:
            await release(device, self._directory)
        except OSError as error:
            log.warning("lease not forgotten", extra={"device": device, "error": str(error)})
            self._warn(device, f"its files cannot be removed: {error.strerror}")
            return False
        self._warn(device, None)
        return True

    def _read_leases(self) -> None:
        self._leases = {
            uplink.device: read_leases(self._directory, uplink.device)
            for uplink in self._uplinks
            if uplink.method is Method.DHCP
        }
        self._update()

    def _update(self) -> None:
        """Emit what is new, hand devices to their clients, and wake up when something runs out."""
        if not self._is_synced:
            return
        now = clock.monotonic()
        in_force = {device: leases.at(now) for device, leases in self._leases.items()}
        by_name = {link.name: link for link in self._links.values()}
        for device, client in self._clients.items():
            link = by_name.get(device)
            client.device_is(link.index if link else None)
        for uplink in self._uplinks:
            link = by_name.get(uplink.device)
            addresses = self._addresses.get(link.index, ()) if link else ()
            leases = in_force.get(uplink.device, NO_LEASES)
            facts = merge(uplink, link, addresses, leases)
            if self._told.get(uplink.slot) != facts:
                self._told[uplink.slot] = facts
                self._emit(UplinkChanged(facts))
        ends = [e.next_end_s for e in in_force.values() if e.next_end_s is not None]
        self._wake_at(min(ends, default=None))

    def _wake_at(self, when: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if when is not None:
            # The loop's clock is the same one (CLOCK_MONOTONIC).
            self._timer = asyncio.get_running_loop().call_at(when, self._update)


def _order(interface: Interface) -> tuple[int, int, int]:
    return interface.version, int(interface.ip), interface.network.prefixlen
