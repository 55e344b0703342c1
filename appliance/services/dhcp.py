"""The DHCP client of an uplink: dhcpcd, for DHCPv4, router advertisements and DHCPv6 alike.

It decides how dhcpcd is run and when it hangs. dhcpcd owns the addresses; it sets no default route
(`--nogateway`), since all of those are the plan's.

dhcpcd, not the kernel, listens to router advertisements (it sets accept_ra of the device to 0):
it solicits them at every start and carrier, also on a box that forwards; it tells gateways and
their end through the same hook as leases; and no default route appears in the main table that is
not ours. Addresses carry their lifetimes in the kernel either way, so they end without dhcpcd too.
"""

import asyncio
import hashlib
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from appliance import clock
from appliance.kernel.process import boot_id
from appliance.services.child import Program, Service, end
from appliance.services.lease import (
    LARGEST_MESSAGE,
    PROTOCOLS,
    HookError,
    LeaseFacts,
    Message,
    lease4_of,
    lease6_of,
    parse_message,
    routers_of,
)

HOOK = Path(__file__).with_name("dhcpcd-hook")
RELEASE = signal.SIGALRM  # dhcpcd gives the lease back and takes its addresses away
HANG_GRACE_S = 30.0
RETRY_S = 10.0

log = logging.getLogger(__name__)

# `persistent`: addresses stay when it ends. `timeout 0`: it waits for a server for ever; by default
# it exits after 30 s. Routes from the server (options 33, 121, 249) are refused: with them a server
# could draw any traffic to itself. No class or host name is told to strangers. `slaac hwaddr`: an
# address that the installer can know beforehand and that survives a lost disk.
CONFIGURATION = """\
# Written by Branchline at every start.
env branchline_leases={leases}
persistent
timeout 0
noipv4ll
nogateway
option domain_name_servers, interface_mtu
nooption static_routes, classless_static_routes, ms_classless_static_routes
require dhcp_server_identifier
vendorclassid
slaac hwaddr
"""


class DhcpClient:
    """dhcpcd on one device, whenever that device is there. Files go to `directory`."""

    def __init__(
        self,
        device: str,
        directory: Path,
        jitter: Callable[[], float],
        tell: Callable[[str | None], None] = lambda _trouble: None,
    ) -> None:
        """`tell` takes what keeps the client from running, and None when it runs."""
        self._tell = tell
        self._device = device
        self._directory = directory
        self._jitter = jitter
        self._index: int | None = None
        self._changed = asyncio.Event()

    def device_is(self, index: int | None) -> None:
        """The device has this index now; None: it is not there."""
        if index != self._index:
            self._index = index
            self._changed.set()

    async def run(self) -> None:
        """Serve the device whenever it is there. Cancelling leaves dhcpcd alone."""
        while True:
            self._changed.clear()
            if self._index is None:
                await self._changed.wait()
                continue
            if (fault := hook_fault()) is not None:
                self._tell(f"no lease would be seen: {fault}")
                await asyncio.sleep(RETRY_S)
                continue
            try:
                service = self._service(self._index)
            except OSError as error:
                await self._pause("its configuration cannot be written", error)
                continue
            running = asyncio.ensure_future(service.run())
            changed = asyncio.ensure_future(self._changed.wait())
            try:
                # A service runs for ever: it ends by a fault of ours only, and that is raised.
                await asyncio.wait((running, changed), return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    running.result()
            finally:
                await _cancelled(running, changed)
            # What it served is gone, or is another device of the same name.
            await self._end(service)

    async def _end(self, service: Service) -> None:
        while True:
            try:
                await service.end()
            except OSError as error:
                await self._pause("its files cannot be removed", error)
            else:
                return self._tell(None)

    async def _pause(self, trouble: str, error: OSError) -> None:
        log.warning(
            "DHCP client has to wait",
            extra={"device": self._device, "trouble": trouble, "error": str(error)},
        )
        self._tell(f"{trouble}: {error.strerror}")
        await asyncio.sleep(RETRY_S)

    async def release(self) -> None:
        """End dhcpcd for good: addresses and lease are given up."""
        await release(self._device, self._directory)

    def _service(self, index: int) -> Service:
        text = configuration(leases_directory(self._directory))
        file = self._directory / f"dhcp-{self._device}.conf"
        file.write_text(text)
        argv = ("dhcpcd", "-B", "--script", str(HOOK), "-f", str(file), self._device)
        identity = hashlib.sha256(repr((argv, text, index)).encode()).hexdigest()
        program = Program(f"dhcp-{self._device}", argv, identity)
        return Service(program, self._directory, self._jitter, self._is_hung, self._tell)

    def _is_hung(self, pid: int) -> bool:
        """A living dhcpcd withdraws what runs out; one that does not is not living."""
        told = read_leases(self._directory, self._device, pid)
        return told.at(clock.monotonic() - HANG_GRACE_S) != told


async def release(device: str, directory: Path) -> None:
    """End the dhcpcd of a device that is none of ours any more, and forget what it told.

    Raises OSError when it has ended and its files cannot be removed.
    """
    await end(directory / f"dhcp-{device}.child", RELEASE)
    for protocol in PROTOCOLS:
        _lease_file(directory, device, protocol).unlink(missing_ok=True)
    for suffix in ("conf", "out"):
        (directory / f"dhcp-{device}.{suffix}").unlink(missing_ok=True)


def served_devices(directory: Path) -> set[str]:
    """The devices for which a dhcpcd of ours has been started, by this supervisor or another."""
    return {file.name[len("dhcp-") : -len(".child")] for file in directory.glob("dhcp-*.child")}


def configuration(leases: Path) -> str:
    """The text of dhcpcd.conf(5)."""
    return CONFIGURATION.format(leases=leases)


def leases_directory(directory: Path) -> Path:
    """Where the hook keeps what it is told."""
    return directory / "leases"


def make_leases_directory(directory: Path) -> None:
    """Make it if need be. Raises OSError, also for a name that dhcpcd.conf(5) cannot express."""
    leases = leases_directory(directory)
    if any(c.isspace() or c in "\"'\\#" for c in str(leases)):
        message = f"{leases}: dhcpcd takes no spaces or quotes: choose another --run-dir"
        raise OSError(message)
    leases.mkdir(mode=0o700, exist_ok=True)


def read_leases(directory: Path, device: str, pid: int | None = None) -> LeaseFacts:
    """What the hook was told of a device since boot, including what has run out meanwhile.

    With `pid`, only what that dhcpcd told. Ends are on the clock of `appliance.clock.monotonic`.
    """
    now, uptime_s = clock.monotonic(), _uptime_s()
    facts = LeaseFacts()
    for protocol in PROTOCOLS:
        try:
            message = _message(directory, device, protocol)
            if message is None or (pid is not None and message.variables.get("pid") != str(pid)):
                continue
            match protocol:
                case "dhcp":
                    facts = replace(facts, lease4=lease4_of(message, now, uptime_s))
                case "dhcp6":
                    facts = replace(facts, lease6=lease6_of(message, now, uptime_s))
                case _:
                    facts = replace(facts, routers=routers_of(message, now, uptime_s))
        except HookError as error:
            log.warning(
                "lease not understood",
                extra={"device": device, "protocol": protocol, "error": str(error)},
            )
    return facts


def _message(directory: Path, device: str, protocol: str) -> Message | None:
    try:
        with _lease_file(directory, device, protocol).open("rb") as file:
            message = parse_message(file.read(LARGEST_MESSAGE + 1))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HookError(str(error)) from error
    return message if message.boot == boot_id() else None  # a run directory on a disk


def _lease_file(directory: Path, device: str, protocol: str) -> Path:
    return leases_directory(directory) / f"{device}.{protocol}"


def _uptime_s() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


async def _cancelled(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def hook_fault() -> str | None:
    """Why dhcpcd could not run our hook, or None."""
    if os.access(HOOK, os.X_OK):
        return None
    return f"{HOOK} cannot be run: reinstall Branchline, or `chmod +x` it"
