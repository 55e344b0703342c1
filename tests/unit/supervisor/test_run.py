"""A supervisor's life on a kernel in memory: what ends it, and what must not."""

import asyncio
import errno
import os
import signal
import socket
import threading
from base64 import b64encode
from collections.abc import Collection, Sequence
from dataclasses import replace
from ipaddress import IPv6Address, ip_interface
from pathlib import Path
from socket import if_nametoindex
from typing import Any

import pytest

from appliance.api.feed import Subscription
from appliance.config.errors import ConfigError
from appliance.config.intent import Intent
from appliance.contract.codec import decode
from appliance.contract.ids import ClassName, PathId, Plane, SiteName, Slot
from appliance.contract.status import Change, WarningStatus
from appliance.core.actions import EndFlows
from appliance.kernel.facts import DeviceFacts, UnsteadyError
from appliance.kernel.kernel import MissingFeature
from appliance.kernel.monitor import AddressesChanged, LinkChanged, Notice
from appliance.plan.compile import compile_plan
from appliance.plan.filter import FILTER_KEY
from appliance.plan.plan import Item, Key, Kind, Link, Observed, Op, Plan, Route
from appliance.probing.paths import Measured
from appliance.probing.sockets import endpoint, pktinfo
from appliance.services import uplinks
from appliance.stamp.sender import SessionSender
from appliance.supervisor import box
from appliance.supervisor.disk import Disk
from appliance.supervisor.run import Life
from tests.unit.supervisor.living import StubbornKernel, codes, life, running, until, write

LOOPBACK = IPv6Address("::1")


class OwnError(Exception):
    """Nobody expects this one."""


def _fail() -> None:
    raise OwnError


@pytest.fixture
def kernel() -> StubbornKernel:
    return StubbornKernel()


async def test_a_fault_in_a_callback_ends_the_supervisor(
    tmp_path: Path, kernel: StubbornKernel, caplog: pytest.LogCaptureFixture
) -> None:
    """It would be logged and forgotten, and what the callback did be done by nobody."""
    write(tmp_path)
    async with running(life(tmp_path, kernel)) as task:
        assert not task.done()
        held = dict(kernel.owned)
        asyncio.get_running_loop().call_soon(_fail)
        with pytest.raises(OwnError):
            async with asyncio.timeout(5):
                await asyncio.shield(task)
    assert OwnError.__name__ in caplog.text
    assert kernel.owned == held  # forwarding goes on


async def test_it_runs_and_answers_though_nothing_can_be_written_to_its_state(
    tmp_path: Path, kernel: StubbornKernel
) -> None:
    _write_lte(tmp_path)
    lived = life(tmp_path, kernel)
    for file in (tmp_path / "state").iterdir():
        file.unlink()
    (tmp_path / "state").rmdir()
    (tmp_path / "state").touch()
    async with running(lived):
        assert lived._source.stage == "running"
        assert (tmp_path / "run" / "api.sock").is_socket()
        await until(lambda: {"recorder", "last-good"} <= codes(lived))
        assert (tmp_path / "run" / "leases").is_dir()


async def test_trouble_with_a_connection_of_the_api_does_not(
    tmp_path: Path, kernel: StubbornKernel
) -> None:
    write(tmp_path)
    async with running(life(tmp_path, kernel)) as task:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "Fatal error on transport", "exception": OSError()})
        await asyncio.sleep(0)
        assert not task.cancelling()
        assert not task.done()
    task.result()


def _has(kernel: StubbornKernel, prefix: str) -> bool:
    return any(prefix in map(str, key.ident) for key in kernel.owned)


async def test_a_candidates_plan_is_compiled_beside_the_loop(
    tmp_path: Path, kernel: StubbornKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    lived = life(tmp_path, kernel)
    async with running(lived):
        candidate = replace(lived._box.settings.intent)
        compiled: set[tuple[bool, bool]] = set()  # is it the candidate's, and in the loop's thread?

        def compile_here(intent: Intent, *arguments: Any, **more: Any) -> Plan:
            is_ours = threading.current_thread() is threading.main_thread()
            compiled.add((intent is candidate, is_ours))
            return compile_plan(intent, *arguments, **more)

        monkeypatch.setattr(box, "compile_plan", compile_here)
        told = await lived._source.plan_text(dry_run=False, candidate=candidate)
        assert told == await lived._source.plan_text(dry_run=False, candidate=None)
        assert await lived._source.plan_text(dry_run=True, candidate=candidate) == ()
        assert compiled == {(True, False), (False, True)}


async def test_a_reload_keeps_the_verdict_of_targets_that_stay(
    tmp_path: Path, kernel: StubbornKernel
) -> None:
    """A new one would be healthy with its first good round, an unhealthy one with the third."""

    def configure(prefix: str, target: str) -> None:
        path = write(tmp_path, prefix)
        gateway = "gateway: 203.0.113.17"
        text = path.read_text()
        health = f"health: {{targets: [icmp {target}, icmp 198.51.100.2, icmp 198.51.100.3]}}"
        path.write_text(text.replace(gateway, f"{gateway}, {health}"))

    configure("192.0.2.0/24", "198.51.100.53")
    lived = life(tmp_path, kernel)
    async with running(lived):
        kept, asking = lived._box.health[Slot(1)], lived._box._asking[Slot(1)]
        configure("192.0.2.128/25", "198.51.100.53")
        await lived.reload()
        assert lived._box.health == {1: kept}
        assert not asking.done()
        configure("192.0.2.128/25", "198.51.100.54")
        await lived.reload()
        assert lived._box.health[Slot(1)] is not kept
        assert asking.cancelling() or asking.cancelled()


async def test_a_reload_from_a_disk_that_hangs_is_refused(
    tmp_path: Path, kernel: StubbornKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    lived, answers = life(tmp_path, kernel), threading.Event()
    async with running(lived):
        monkeypatch.setattr(lived, "_disk", Disk("configuration", wait_s=0.0))
        monkeypatch.setattr("appliance.supervisor.run.load", lambda *_: answers.wait())
        try:
            for _ in range(3):
                with pytest.raises(ConfigError, match="the disk of the configuration does not"):
                    await lived.reload()
        finally:
            answers.set()


async def test_a_reload_brings_the_new_configuration_into_force(
    tmp_path: Path, kernel: StubbornKernel
) -> None:
    write(tmp_path)
    lived = life(tmp_path, kernel)
    async with running(lived):
        write(tmp_path, "192.0.2.128/25")
        assert (await lived.reload()).is_changed
        assert _has(kernel, "192.0.2.128/25")
        assert not _has(kernel, "192.0.2.0/24")
        assert (tmp_path / "state/last-good.yaml").read_bytes() == (
            tmp_path / "a.yaml"
        ).read_bytes()


async def test_flows_that_are_not_wanted_any_more_end_when_the_rules_say_so_too(
    tmp_path: Path, kernel: StubbornKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, the next packet of such a flow would begin it again."""
    write(tmp_path)
    lived = life(tmp_path, kernel)
    async with running(lived):
        rules: list[Item] = []

        async def end_flows(_mark: int, _mask: int) -> None:
            rules.append(kernel.owned[FILTER_KEY])

        monkeypatch.setattr(kernel, "end_flows", end_flows)
        before = kernel.owned[FILTER_KEY]
        write(tmp_path, "192.0.2.0/24", "policies: [{class: default, internet: none}]\n")
        await lived.reload()
        await until(lambda: bool(rules))
        assert before not in rules
        assert rules[0] == kernel.owned[FILTER_KEY]


CLASSES = "classes: [{{name: {0}, match: [{{dscp: ef}}]}}, {{name: {1}, match: [{{dscp: cs1}}]}}]\n"
CLOSED = "policies: [{class: bulk, internet: none}]\n"


@pytest.fixture
def ended(kernel: StubbornKernel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The marks of flows that were ended."""
    found: list[int] = []

    async def end_flows(mark: int, _mask: int) -> None:
        found.append(mark)

    monkeypatch.setattr(kernel, "end_flows", end_flows)
    return found


async def test_flows_are_ended_by_the_numbers_that_they_bear(
    tmp_path: Path, kernel: StubbornKernel, ended: list[int]
) -> None:
    write(tmp_path, more=CLASSES.format("bulk", "voice"))
    lived = life(tmp_path, kernel)
    async with running(lived):
        await _rest()
        ended.clear()
        write(tmp_path, more=CLASSES.format("voice", "bulk") + CLOSED)
        await lived.reload()
        await until(lambda: bool(ended))
        assert ended == [0x11000000], "it was the first class"


async def test_what_an_earlier_configuration_permitted_ends_at_the_start(
    tmp_path: Path, kernel: StubbornKernel, ended: list[int]
) -> None:
    write(tmp_path, more=CLASSES.format("voice", "bulk") + CLOSED)
    async with running(life(tmp_path, kernel)):
        await until(lambda: bool(ended))
        await _rest()
        assert 0x21000000 in ended
        assert 0x11000000 not in ended


async def test_flows_of_a_dead_uplink_end_also_after_a_reload_that_failed(
    tmp_path: Path, kernel: StubbornKernel, ended: list[int]
) -> None:
    write(tmp_path, more=CLASSES.format("voice", "bulk"))
    lived = life(tmp_path, kernel)
    async with running(lived):
        await _rest()
        ended.clear()
        write(tmp_path, "192.0.2.128/25", CLASSES.format("voice", "bulk") + CLOSED)
        kernel.refused = ("192.0.2.128/25",)
        observe = kernel.observe

        async def dying(wanted: Collection[Key]) -> Observed:
            kernel.observe = observe  # type: ignore[method-assign]
            lived._box._end_flows(EndFlows(Slot(1), (ClassName("voice"),), "dead"))
            return await observe(wanted)

        kernel.observe = dying  # type: ignore[method-assign]
        with pytest.raises(ConfigError):
            await lived.reload()
        await until(lambda: bool(ended))
        assert set(ended) == {0x11000000}


async def test_a_kernel_that_cannot_send_twice_is_warned_of_from_the_start(
    tmp_path: Path, kernel: StubbornKernel
) -> None:
    kernel.trouble = "no BPF"
    write(tmp_path, more="policies: [{class: default, mode: duplicate}]\n")
    lived = life(tmp_path, kernel)
    async with running(lived):
        status = await lived._source.status()
        (warning,) = [w for w in status.warnings if w.code == "duplicate-unavailable"]
        assert "no BPF" in warning.text


async def test_what_the_kernel_refuses_is_taken_back(
    tmp_path: Path, kernel: StubbornKernel
) -> None:
    write(tmp_path)
    lived = life(tmp_path, kernel)
    async with running(lived) as task:
        held, told = dict(kernel.owned), lived._source.config
        write(tmp_path, "192.0.2.128/25")
        kernel.refused = ("192.0.2.128/25",)
        with pytest.raises(ConfigError, match=r"192\.0\.2\.128/25.*Operation not permitted"):
            await lived.reload()
        assert kernel.owned == held
        config = lived._source.config
        assert (config.digest, len(config.refused)) == (told.digest, 1)
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0)
        await until(lambda: lived._source.config is not config)  # it was refused again
        assert kernel.owned == held
        assert not task.done()


SHAPED = ", shaping: {up: 10 Mbit/s, down: 50 Mbit/s"
SHARES = SHAPED + ", classes: [{class: realtime, guarantee: 20 %}]"


async def test_what_the_kernel_lacks_for_another_configuration_is_named_before_it_is_changed(
    tmp_path: Path, kernel: StubbornKernel
) -> None:
    write(tmp_path)
    lived = life(tmp_path, kernel)
    async with running(lived):
        held = dict(kernel.owned)
        kernel.missing = (MissingFeature("the CAKE shaper", "use another kernel"),)
        _write_shaped(tmp_path, SHAPED)
        with pytest.raises(ConfigError, match=r"lacks the CAKE shaper \(use another kernel\)"):
            await lived.reload()
        assert kernel.owned == held
        kernel.missing = ()
        for more in (SHAPED, SHAPED, SHARES, SHARES, SHAPED):  # what is there is not tried again
            _write_shaped(tmp_path, more)
            await lived.reload()
        assert kernel.tried == [False, False, True]


def _write_shaped(folder: Path, shaping: str) -> None:
    path = write(folder)
    gateway = "gateway: 203.0.113.17"
    path.write_text(path.read_text().replace(gateway, f"{gateway}{shaping}}}"))


LTE = "  - {name: lte, device: nowhere1, address: dhcp}\n"


def _write_lte(folder: Path) -> None:
    path = write(folder)
    path.write_text(path.read_text().replace("peers:\n", f"{LTE}peers:\n"))


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices whose leases were given back."""
    found: list[str] = []

    async def note(device: str, _directory: Path) -> None:
        found.append(device)

    monkeypatch.setattr(uplinks, "release", note)
    return found


async def test_a_lease_is_given_back_once_the_plan_without_it_is_in_force(
    tmp_path: Path, kernel: StubbornKernel, released: list[str]
) -> None:
    _write_lte(tmp_path)
    lived = life(tmp_path, kernel)
    async with running(lived):
        write(tmp_path)
        held = asyncio.Event()
        observe = kernel.observe

        async def slowly(wanted: Collection[Key]) -> Observed:
            await held.wait()
            return await observe(wanted)

        kernel.observe = slowly  # type: ignore[method-assign]
        reloading = asyncio.create_task(lived.reload())
        await until(lambda: len(lived._box.settings.intent.uplinks) == 1)
        await _rest()
        assert released == []
        held.set()
        await reloading
        await until(lambda: bool(released))
        assert released == ["nowhere1"]


@pytest.mark.parametrize("is_blind", [False, True])
async def test_a_refused_configuration_gives_no_lease_back(
    tmp_path: Path, kernel: StubbornKernel, released: list[str], is_blind: bool
) -> None:
    """Nor while going back is tried: the old configuration needs it."""
    _write_lte(tmp_path)
    lived = life(tmp_path, kernel)
    async with running(lived):
        write(tmp_path, "192.0.2.128/25")
        kernel.refused, kernel.is_blind = ("192.0.2.128/25",), is_blind
        with pytest.raises(ConfigError, match="kernel does not hold the plan"):
            await lived.reload()
        await _rest()
        assert released == []
        kernel.refused, kernel.is_blind = (), False
        await until(lambda: not lived._box.uplinks._kept)  # the old one is in force again
        await _rest()
        assert released == []
        write(tmp_path)
        await lived.reload()
        await until(lambda: bool(released))
        assert released == ["nowhere1"]


async def _rest() -> None:
    """Let everything run that is ready to."""
    for _ in range(100):
        await asyncio.sleep(0)


@pytest.mark.parametrize("is_blind", [False, True])
async def test_going_back_may_fail_too_and_is_tried_until_it_does_not(
    tmp_path: Path, kernel: StubbornKernel, is_blind: bool
) -> None:
    write(tmp_path)
    lived = life(tmp_path, kernel)
    async with running(lived) as task:
        held = dict(kernel.owned)
        write(tmp_path, "192.0.2.128/25")
        kernel.refused, kernel.is_blind = ("192.0.2.",), is_blind
        kernel.remove(next(k for k in held if "192.0.2.0/24" in map(str, k.ident)))
        with pytest.raises(ConfigError, match="kernel does not hold the plan"):
            await lived.reload()
        assert kernel.owned != held
        await until(lambda: "plan-not-in-force" in codes(lived))
        assert not task.done()
        kernel.refused, kernel.is_blind = (), False
        await until(lambda: "plan-not-in-force" not in codes(lived))
        assert kernel.owned == held


async def _told_warnings(
    changes: Subscription, code: str, *, stands: bool
) -> tuple[WarningStatus, ...]:
    """All warnings, as soon as this one is told, or that it is over."""
    async for told in changes:
        warnings = decode(Change, told.data).warnings if told.event == "change" else None
        if warnings is not None and any(each.code == code for each in warnings) == stands:
            return warnings
    raise EOFError


async def test_a_plan_that_is_not_in_force_is_told_once_with_its_beginning(
    tmp_path: Path, kernel: StubbornKernel
) -> None:
    write(tmp_path)
    lived = life(tmp_path, kernel)
    async with running(lived):
        changes = lived._source.subscribe()
        kernel.refused = ("192.0.2.",)
        kernel.remove(next(k for k in kernel.owned if "192.0.2.0/24" in map(str, k.ident)))
        lived._box.wake()
        async with asyncio.timeout(20):
            told = await _told_warnings(changes, "plan-not-in-force", stands=True)
        (first,) = (w for w in told if w.code == "plan-not-in-force")
        assert "192.0.2.0/24" in first.text
        await asyncio.sleep(0.02)
        (again,) = (w for w in (await lived._source.status()).warnings if w.code == first.code)
        assert again.since == first.since
        kernel.refused = ()
        async with asyncio.timeout(20):
            await _told_warnings(changes, first.code, stands=False)
        changes.close()


async def test_a_lan_whose_device_is_missing_is_told_until_it_appears(
    tmp_path: Path, kernel: StubbornKernel
) -> None:
    lans = "lans: [{name: office, device: nowhere1, address: 192.0.2.1/24}]\n"
    write(tmp_path, "198.51.100.0/24", lans)
    lived = life(tmp_path, kernel)
    async with running(lived):
        (row,) = (w for w in (await lived._source.status()).warnings if w.code == "lan-missing")
        assert (row.subject, row.severity) == ("nowhere1", "warning")
        lived._box.lans_are(frozenset({"nowhere1"}))
        assert "lan-missing" not in codes(lived)
        lived._box.lans_are(frozenset())
        assert "lan-missing" in codes(lived)
        write(tmp_path, "198.51.100.0/24")
        await lived.reload()
        assert "lan-missing" not in codes(lived)


async def test_a_lease_from_a_network_of_another_site_is_told(
    tmp_path: Path, kernel: StubbornKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.links["nowhere1"] = Link(is_up=False)
    _write_lte(tmp_path)
    lived = life(tmp_path, kernel)
    leased = DeviceFacts("nowhere1", True, True, 1500, (ip_interface("192.0.2.9/24"),), 79)
    monkeypatch.setattr(lived._box._facts, "read", lambda: {leased.name: leased})
    async with running(lived):
        assert "lease-overlaps" in codes(lived)
        write(tmp_path, "198.51.100.0/24")
        await lived.reload()
        assert "lease-overlaps" not in codes(lived)


LAN = DeviceFacts("lan0", is_up=True, has_carrier=True, mtu=1500, ifindex=77)
UPLINK = DeviceFacts("nowhere0", is_up=True, has_carrier=True, mtu=1500, ifindex=78)


class Notices:
    """A monitor that tells what a test says, and facts of a LAN and an uplink to go with it."""

    def __init__(self, lived: Life, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: asyncio.Queue[tuple[Notice, ...]] = asyncio.Queue()
        self.interruptions = 0  # so many times, the devices cannot be read
        self.interruption: Exception = UnsteadyError()
        self.reads = 0
        monkeypatch.setattr(lived._box._monitor, "read", self.told.get)
        monkeypatch.setattr(lived._box._facts, "read", self._read)

    def _read(self) -> dict[str, DeviceFacts]:
        self.reads += 1
        if self.interruptions:
            self.interruptions -= 1
            raise self.interruption
        return {device.name: device for device in (LAN, UPLINK)}


LAN_ADDRESS = Key(Kind.ADDRESS, ("lan0", "192.0.2.1/24"))


@pytest.fixture
async def with_a_lan(
    tmp_path: Path, kernel: StubbornKernel, monkeypatch: pytest.MonkeyPatch
) -> tuple[Life, Notices]:
    kernel.links["lan0"] = Link(is_up=False)
    lans = "lans: [{name: office, device: lan0, address: 192.0.2.1/24}]\n"
    write(tmp_path, "198.51.100.0/24", lans)
    lived = life(tmp_path, kernel)
    return lived, Notices(lived, monkeypatch)


async def test_what_is_taken_from_a_lan_is_put_back_as_soon_as_it_is_told(
    kernel: StubbornKernel, with_a_lan: tuple[Life, Notices]
) -> None:
    lived, notices = with_a_lan
    async with running(lived):
        await until(lambda: not lived._box._dirty.is_set())
        assert LAN_ADDRESS in kernel.owned
        kernel.remove(LAN_ADDRESS)
        notices.told.put_nowait((AddressesChanged(LAN.ifindex),))
        await until(lambda: LAN_ADDRESS in kernel.owned)
        kernel.links["lan0"] = Link(is_up=False)
        notices.told.put_nowait((LinkChanged("lan0", True, False, False, 1500, LAN.ifindex),))
        await until(lambda: kernel.links["lan0"].is_up)


@pytest.mark.parametrize(
    "interruption", [UnsteadyError(), BlockingIOError(errno.EAGAIN, "no answer")]
)
async def test_devices_that_cannot_be_read_are_read_again(
    with_a_lan: tuple[Life, Notices], caplog: pytest.LogCaptureFixture, interruption: Exception
) -> None:
    lived, notices = with_a_lan
    notices.interruption = interruption
    notices.interruptions = 2  # at the start already
    async with running(lived) as task:
        assert notices.reads > 2
        assert caplog.text.count("devices are read again") == 2
        notices.interruptions = 2
        notices.told.put_nowait((AddressesChanged(UPLINK.ifindex),))
        await until(lambda: not notices.interruptions)
        reads = notices.reads
        await until(lambda: notices.reads > reads)  # and that was told
        assert not task.done()
        assert caplog.text.count("devices are read again") == 4
        await until(lambda: lived._box._reread is None)
        notices.interruptions = 1
        notices.told.put_nowait((AddressesChanged(UPLINK.ifindex),))
        await until(lambda: not notices.interruptions)
    task.result()  # what was to be read again is not, after the end


async def test_a_candidate_is_planned_with_its_own_devices(
    with_a_lan: tuple[Life, Notices],
) -> None:
    lived, _ = with_a_lan
    async with running(lived):
        intent = lived._box.settings.intent
        gone = replace(intent.lans[0], device="lan1")
        moved = replace(intent.uplinks[0], device="nowhere9")
        plan = await lived._box.plan_of(replace(intent, lans=(*intent.lans, gone)))
        assert LAN_ADDRESS in plan
        assert not any("lan1" in str(key.ident) for key in plan)
        assert _by_gateways(plan) == _by_gateways(lived._box.plan()) != set()
        plan = await lived._box.plan_of(replace(intent, uplinks=(moved,)))
        assert _by_gateways(plan) == set()


def _by_gateways(plan: Plan) -> set[Key]:
    """The routes that uplinks with a carrier have."""
    return {key for key, item in plan.items() if isinstance(item, Route) and item.gateway}


async def test_our_own_changes_are_looked_at_once_more_and_that_is_all(
    kernel: StubbornKernel, with_a_lan: tuple[Life, Notices], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monitor tells of devices that we set up ourselves."""
    lived, notices = with_a_lan
    changed = LinkChanged("lan0", True, True, True, 1500, LAN.ifindex)
    looks = []
    apply, observe = kernel.apply, kernel.observe

    async def tell(ops: Sequence[Op]) -> None:
        await apply(ops)
        if any(op.key == Key(Kind.LINK, ("lan0",)) for op in ops):
            notices.told.put_nowait((changed,))

    async def look(wanted: Collection[Key]) -> Observed:
        looks.append(None)
        return await observe(wanted)

    monkeypatch.setattr(kernel, "apply", tell)
    monkeypatch.setattr(kernel, "observe", look)
    async with running(lived):
        await asyncio.sleep(4 * box.SETTLE_S)
        looks.clear()
        kernel.links["lan0"] = Link(is_up=False)
        notices.told.put_nowait((replace(changed, is_up=False),))
        await asyncio.sleep(20 * box.SETTLE_S)
        assert kernel.links["lan0"].is_up
        assert len(looks) <= 4  # what is missing, whether it is there, and the notice of it


async def test_an_address_of_an_uplink_that_is_no_other_makes_nobody_look_at_the_kernel(
    with_a_lan: tuple[Life, Notices],
) -> None:
    """Each router advertisement is such a notice, and on a hub a look takes its time."""
    lived, notices = with_a_lan
    async with running(lived):
        await until(lambda: not lived._box._dirty.is_set())
        reads = notices.reads
        notices.told.put_nowait((AddressesChanged(UPLINK.ifindex),))
        await until(lambda: notices.reads > reads)
        assert not lived._box._dirty.is_set()


async def test_a_port_of_the_probes_that_is_taken_is_told_and_tried_again(
    tmp_path: Path, kernel: StubbornKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.supervisor.tunnels.RETRY_S", 0.05)
    write(tmp_path)
    lived = life(tmp_path, kernel)
    port = lived._box.settings.intent.probing.port
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
        other.bind(("::", port))
        async with running(lived):
            status = await lived._source.status()
            (row,) = (w for w in status.warnings if w.code == "probes-unanswered")
            assert f"{port} cannot be had: Address already in use" in row.text
            assert lived._box.reflection.port is None
            other.close()
            await until(lambda: lived._box.reflection.port == port)
            assert "probes-unanswered" not in codes(lived)


@pytest.mark.parametrize("keys", [(None, 7), (7, 8), (8, None)])
async def test_a_reload_brings_another_probe_key_into_use(
    tmp_path: Path, kernel: StubbornKernel, keys: tuple[int | None, int | None]
) -> None:
    def configure(key: int | None) -> bytes | None:
        write(tmp_path, key_file=None if key is None else f"{key}.key")
        if key is None:
            return None
        octets = bytes([key] * 32)
        (tmp_path / f"{key}.key").write_bytes(b64encode(octets))
        (tmp_path / f"{key}.key").chmod(0o600)
        return octets

    before = configure(keys[0])
    lived = life(tmp_path, kernel)
    async with running(lived):
        after = configure(keys[1])
        await lived.reload()
        box = lived._box

        def is_answered(key: bytes | None) -> bool:
            probe = SessionSender(1, key=key).probe(1)
            return box.reflection.reflector.reflect(probe, b"x" * 24, 10, 10, 64) is not None

        assert is_answered(after)
        if before is not None:
            assert not is_answered(before)
        end, loopback = pktinfo(LOOPBACK, if_nametoindex("lo")), box.reflection.port or 0
        box.reflection.follow([end])
        path = PathId(SiteName("b"), Plane(Slot(1), Slot(1)))
        box.prober.measure({path: Measured(end, endpoint(LOOPBACK, loopback), 1420, "wan0")})
        await until(lambda: box.prober.answered > 0)
