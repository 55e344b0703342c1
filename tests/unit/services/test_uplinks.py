"""Facts of uplinks: the merge of what is configured, seen and leased, and the news of changes."""

import asyncio
import contextlib
import errno
import itertools
import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import clock
from appliance.config.intent import Method, Uplink
from appliance.contract.ids import Label, Slot, UplinkName
from appliance.core.events import UplinkChanged, UplinkFacts
from appliance.kernel.process import Child, boot_id, start_time
from appliance.services import uplinks as module
from appliance.services.dhcp import leases_directory, make_leases_directory, served_devices
from appliance.services.lease import Lease4, LeaseFacts, Router
from appliance.services.uplinks import Link, LinkAddress, Uplinks, merge
from tests.unit.services.hook import ADVERT, BOUND, hook_file

STATIC = Uplink(
    name=UplinkName("fibre"),
    slot=Slot(1),
    label=Label("fibre"),
    device="eth0",
    method=Method.STATIC,
    addresses=(ip_interface("203.0.113.2/24"), ip_interface("2001:db8:1::2/64")),
    gateways=(ip_address("203.0.113.1"), ip_address("fe80::1")),
)
DHCP = replace(STATIC, slot=Slot(2), device="wwan0", method=Method.DHCP, addresses=(), gateways=())
ETH0, WWAN0 = Link(2, "eth0", True), Link(7, "wwan0", True)
ROUTER = Router(ip_address("fe80::9"), 0, None, 100.0)
LEASE = Lease4(
    ip_interface("198.51.100.65/24"), (ip_address("198.51.100.1"),), (), None, ends_s=100.0
)


def at(index: int, *texts: str) -> tuple[LinkAddress, ...]:
    return tuple(LinkAddress(index, ip_interface(text)) for text in texts)


def shown(facts: UplinkFacts) -> tuple[list[str], list[str]]:
    return [str(a) for a in facts.addresses], [str(g) for g in facts.gateways]


def test_an_uplink_without_its_device_has_nothing() -> None:
    assert merge(STATIC, None) == UplinkFacts(Slot(1))


def test_a_static_uplink_has_the_configured_gateways_of_the_families_it_has() -> None:
    facts = merge(STATIC, ETH0, at(2, "2001:db8:1::2/64", "203.0.113.2/24"))
    assert shown(facts) == (["203.0.113.2/24", "2001:db8:1::2/64"], ["203.0.113.1", "fe80::1"])
    assert shown(merge(STATIC, ETH0, at(2, "203.0.113.2/24")))[1] == ["203.0.113.1"]
    assert facts.is_attached


def test_carrier_is_told_apart_from_addresses() -> None:
    facts = merge(STATIC, replace(ETH0, has_carrier=False), at(2, "203.0.113.2/24"))
    assert (facts.has_device, facts.has_carrier, facts.is_attached) == (True, False, False)


def test_a_leased_gateway_counts_while_the_leased_address_is_there() -> None:
    leases = LeaseFacts(lease4=LEASE)
    assert shown(merge(DHCP, WWAN0, at(7, "198.51.100.65/24"), leases))[1] == ["198.51.100.1"]
    assert shown(merge(DHCP, WWAN0, at(7, "198.51.100.99/24"), leases))[1] == []


def test_an_advertised_gateway_counts_while_there_is_an_address_to_use_it_with() -> None:
    leases = LeaseFacts(routers=(ROUTER, replace(ROUTER, address=ip_address("fe80::8"))))
    assert shown(merge(DHCP, WWAN0, at(7, "2001:db8:1::77/64"), leases))[1] == ["fe80::9"]
    # The prefix was withdrawn: its addresses are deprecated.
    assert merge(DHCP, WWAN0, (), leases) == UplinkFacts(Slot(2), True, True)


def test_a_gateway_that_is_ourselves_is_none() -> None:
    uplink = replace(STATIC, gateways=(ip_address("203.0.113.2"), ip_address("fe80::1")))
    facts = merge(uplink, ETH0, at(2, "203.0.113.2/24", "2001:db8:1::2/64"))
    assert shown(facts)[1] == ["fe80::1"]


@given(st.permutations(at(7, "2001:db8::2/64", "198.51.100.9/24", "198.51.100.10/24")))
def test_the_order_in_which_addresses_come_is_no_fact(addresses: list[LinkAddress]) -> None:
    assert shown(merge(DHCP, WWAN0, addresses))[0] == [
        "198.51.100.9/24",
        "198.51.100.10/24",
        "2001:db8::2/64",
    ]


@dataclass
class World:
    uplinks: Uplinks
    directory: Path
    told: list[UplinkFacts] = field(default_factory=list)

    def news(self) -> list[UplinkFacts]:
        told, self.told = self.told, []
        return told

    def hook(self, message: dict[str, str], **changes: str) -> None:
        """Leave a message as the hook does, written now."""
        uptime = Path("/proc/uptime").read_text().split()[0]
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        head = {"branchline_uptime": uptime, "branchline_boot": boot}
        file = leases_directory(self.directory) / f"wwan0.{message['protocol']}"
        file.with_suffix(".new").write_bytes(hook_file(message | head | changes))
        file.with_suffix(".new").replace(file)

    async def until(self, condition: Callable[[UplinkFacts], bool], what: str) -> None:
        await until(lambda: any(condition(facts) for facts in self.told), what)


def world(tmp_path: Path, *uplinks: Uplink) -> World:
    make_leases_directory(tmp_path)
    made: list[World] = []

    def emit(event: UplinkChanged) -> None:
        made[0].told.append(event.facts)

    made.append(World(Uplinks(uplinks, tmp_path, emit, lambda: 0.5), tmp_path))
    return made[0]


@contextlib.asynccontextmanager
async def running(uplinks: Uplinks) -> AsyncIterator[None]:
    task = asyncio.ensure_future(uplinks.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_every_uplink_is_told_at_the_first_look_and_then_changes_only(tmp_path: Path) -> None:
    w = world(tmp_path, STATIC, DHCP)
    w.uplinks.link_changed(ETH0)  # before the first look: incomplete, so not told
    assert w.news() == []
    addresses = at(2, "203.0.113.2/24")
    w.uplinks.resync([ETH0], addresses)
    gateway = (ip_address("203.0.113.1"),)
    fibre = UplinkFacts(Slot(1), True, True, (ip_interface("203.0.113.2/24"),), gateway)
    assert w.news() == [fibre, UplinkFacts(Slot(2))]
    w.uplinks.resync([ETH0], addresses)
    w.uplinks.link_changed(ETH0)
    w.uplinks.link_changed(Link(9, "unrelated", True))
    assert w.news() == []
    w.uplinks.link_changed(replace(ETH0, has_carrier=False))
    assert w.news() == [replace(fibre, has_carrier=False)]


async def test_a_device_that_goes_and_comes_is_followed(tmp_path: Path) -> None:
    w = world(tmp_path, STATIC)
    w.uplinks.resync([ETH0], at(2, "203.0.113.2/24"))
    attached = w.news()[-1]
    w.uplinks.link_gone(2)
    assert w.news() == [UplinkFacts(Slot(1))]
    # Plugged in again: another index.
    w.uplinks.resync([Link(30, "eth0", True)], at(30, "203.0.113.2/24"))
    assert w.news()[-1] == attached


async def test_a_device_takes_its_addresses_along(tmp_path: Path) -> None:
    w = world(tmp_path, STATIC)
    w.uplinks.resync([ETH0], at(2, "203.0.113.2/24"))
    w.uplinks.link_gone(2)
    w.uplinks.link_changed(ETH0)  # even if the kernel gives out the index again
    assert w.news()[-1] == UplinkFacts(Slot(1), True, True)


async def test_a_renamed_device_is_another_one(tmp_path: Path) -> None:
    w = world(tmp_path, STATIC)
    w.uplinks.resync([ETH0], at(2, "203.0.113.2/24"))
    attached = w.news()[-1]
    w.uplinks.link_changed(Link(2, "eth7", True))
    assert w.news() == [UplinkFacts(Slot(1))]
    w.uplinks.link_changed(ETH0)
    assert w.news() == [attached]


async def test_addresses_that_change_at_run_time_are_followed(tmp_path: Path) -> None:
    w = world(tmp_path, STATIC)
    w.uplinks.resync([ETH0], at(2, "203.0.113.2/24"))
    w.news()
    w.uplinks.resync([ETH0], at(2, "203.0.113.2/24", "203.0.113.77/24"))
    w.uplinks.resync([ETH0], at(2, "203.0.113.77/24"))
    assert [shown(facts)[0] for facts in w.news()] == [
        ["203.0.113.2/24", "203.0.113.77/24"],
        ["203.0.113.77/24"],
    ]


def has_gateway(text: str) -> Callable[[UplinkFacts], bool]:
    return lambda facts: ip_address(text) in facts.gateways


async def test_what_the_hook_leaves_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no dhcpcd there: the hook's files are ours
    w = world(tmp_path, DHCP)
    w.uplinks.resync([WWAN0], at(7, "198.51.100.65/24", "2001:db8:1::7/64"))
    async with running(w.uplinks):
        await asyncio.sleep(0)  # now it watches
        w.hook(BOUND)
        await w.until(has_gateway("198.51.100.1"), "the lease")
        w.hook(ADVERT, nd1_now="997", nd1_lifetime="60")
        await w.until(has_gateway("fe80::58ae:a5ff:fe74:c809"), "the router")
        w.news()
        w.hook(ADVERT, nd1_lifetime="0")
        await w.until(lambda f: not has_gateway("fe80::58ae:a5ff:fe74:c809")(f), "its end")


async def test_a_router_ends_by_itself_when_nobody_says_so(tmp_path: Path) -> None:
    """dhcpcd may be dead or hang: the lifetime holds all the same."""
    w = world(tmp_path, DHCP)
    w.hook(ADVERT, nd1_now="997", nd1_lifetime="1")
    w.uplinks.resync([WWAN0], at(7, "2001:db8:1::7/64"))
    assert shown(w.news()[-1])[1] == ["fe80::58ae:a5ff:fe74:c809"]
    await w.until(lambda facts: facts.gateways == (), "the end of its lifetime")


async def test_facts_are_there_at_once_after_a_restart(tmp_path: Path) -> None:
    first = world(tmp_path, DHCP)
    first.hook(BOUND)
    second = world(tmp_path, DHCP)
    second.uplinks.resync([WWAN0], at(7, "198.51.100.65/24"))
    assert [shown(facts)[1] for facts in second.news()] == [["198.51.100.1"]]


async def test_another_configuration_tells_what_is_new(tmp_path: Path) -> None:
    w = world(tmp_path, STATIC)
    w.uplinks.resync([ETH0, WWAN0], at(2, "203.0.113.2/24"))
    w.news()
    w.uplinks.reconfigure([STATIC, DHCP])
    assert w.news() == [UplinkFacts(Slot(2), True, True)]
    w.uplinks.reconfigure([replace(STATIC, device="wwan0")])
    assert w.news() == [UplinkFacts(Slot(1), True, True)]
    w.uplinks.reconfigure([replace(STATIC, device="wwan0", name=UplinkName("wire"))])
    assert w.news() == []  # whoever knew the facts knows them still


async def test_another_device_is_told_even_if_it_looks_alike(tmp_path: Path) -> None:
    w = world(tmp_path, STATIC)
    w.uplinks.resync([ETH0, replace(WWAN0, name="eth1")], ())
    first = w.news()
    w.uplinks.reconfigure([replace(STATIC, device="eth1")])
    assert w.news() == first == [UplinkFacts(Slot(1), True, True)]


LINKS = st.lists(
    st.builds(Link, st.integers(1, 4), st.sampled_from(["eth0", "wwan0", "x"]), st.booleans()),
    max_size=12,
)


@given(LINKS)
def test_notices_of_links_end_where_a_resync_would(steps: list[Link]) -> None:
    """And nothing is told twice in a row. A link of an index that is there already goes first."""

    async def story() -> None:
        with tempfile.TemporaryDirectory() as directory:
            followed, looked = (world(Path(directory), STATIC, DHCP) for _ in range(2))
            followed.uplinks.resync([], [])
            links: dict[int, Link] = {}
            for step in steps:
                if step.index in links:
                    del links[step.index]
                    followed.uplinks.link_gone(step.index)
                elif step.name not in {link.name for link in links.values()}:
                    links[step.index] = step
                    followed.uplinks.link_changed(step)
            looked.uplinks.resync(links.values(), [])
            assert last_by_slot(followed.told) == last_by_slot(looked.told)
            for slot in (1, 2):
                told = [facts for facts in followed.told if facts.slot == slot]
                assert all(a != b for a, b in itertools.pairwise(told))

    asyncio.run(story())


def last_by_slot(told: Iterable[UplinkFacts]) -> dict[Slot, UplinkFacts]:
    return {facts.slot: facts for facts in told}


@pytest.mark.parametrize("device", ["eth0", "eth0.100"])
async def test_a_dhcpcd_of_an_uplink_that_is_none_any_more_is_ended(
    tmp_path: Path, device: str
) -> None:
    """An earlier configuration said dhcp; its client would keep the address for ever."""
    # An orphan, as after an earlier supervisor. SIGALRM is how dhcpcd is told to give the lease
    # back and to take its addresses away.
    script = f"trap 'touch {tmp_path}/released; exit' ALRM; echo $$; while :; do sleep 0.01; done"
    shell = await asyncio.create_subprocess_exec(
        "sh", "-c", f'setsid sh -c "$1" > {tmp_path}/pid &', "sh", script
    )
    await shell.wait()
    await until(lambda: text(tmp_path / "pid").endswith("\n"), "its process id")
    pid = int(text(tmp_path / "pid"))
    record = {"pid": pid, "birth": birth_of(pid), "boot": boot_id(), "identity": "x"}
    (tmp_path / f"dhcp-{device}.child").write_text(json.dumps(record))
    async with running(world(tmp_path, STATIC).uplinks):
        await until(lambda: start_time(pid) is None, "its end")
        await until(lambda: served_devices(tmp_path) == set(), "no trace of it")
    assert (tmp_path / "released").exists()


async def test_what_cannot_be_removed_of_an_uplink_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    told: list[tuple[str, str | None]] = []
    (tmp_path / "dhcp-eth7.child").write_text("{}")
    make_leases_directory(tmp_path)
    uplinks = Uplinks([STATIC], tmp_path, lambda _: None, lambda: 0.5, lambda *n: told.append(n))

    async def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as read_only:
        read_only.setattr(module, "release", refuse)
        task = asyncio.ensure_future(uplinks.run())
        await until(lambda: len(told) > 1, "two tries")
    assert set(told) == {("eth7", "its files cannot be removed: Read-only file system")}
    await until(lambda: told[-1] == ("eth7", None), "its end")
    assert served_devices(tmp_path) == set()
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def birth_of(pid: int) -> int:
    orphan = Child(pid, os.pidfd_open(pid))
    orphan.close()
    return orphan.birth


def text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition of the world; the test fails when it does not come."""
    end = clock.monotonic() + 10
    while not condition():
        assert clock.monotonic() < end, f"never came: {what}"
        await asyncio.sleep(0.005)
