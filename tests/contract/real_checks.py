"""What only a real kernel can show. Each check gets a clean network namespace."""

import asyncio
import re
import socket
import sys
import tempfile
from base64 import b64encode
from contextlib import aclosing
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from appliance.config.addressing import BOND_PRIORITY, LOG_GROUP
from appliance.contract.ids import Plane, Slot
from appliance.kernel.conntrack import FlowKey
from appliance.kernel.facts import FactsReader
from appliance.kernel.features import missing_features
from appliance.kernel.kernel import KernelError
from appliance.kernel.keys import digest
from appliance.kernel.linux import LinuxKernel
from appliance.kernel.lock import AlreadyRunningError, SupervisorLock
from appliance.kernel.monitor import (
    AddressesChanged,
    LinkChanged,
    Monitor,
    Notice,
    ObjectsChanged,
    Resync,
)
from appliance.plan.compile import compile_plan
from appliance.plan.counters import received_counter, sent_counter
from appliance.plan.diff import diff
from appliance.plan.filter import FILTER_KEY
from appliance.plan.plan import Add, Change, Filter, Key, Kind, Nexthop, Route, Wireguard
from appliance.plan.text import render_op
from tests.contract.kernel_contract import (
    bonded_over,
    bonded_plan,
    bonds_of,
    branch_plan,
    converge,
    is_met,
    twice_plan,
)
from tests.contract.shell import PRESHARED, PRIVATE, RealWorld, shell
from tests.unit.plan import examples as ex


async def check_the_written_commands_do_the_same(world: RealWorld) -> None:
    """What `plan --dry-run` prints is what a person could type instead of us."""
    plan = compile_plan(
        ex.BRANCH,
        ex.BRANCH_FACTS,
        ex.BRANCH_STEERING,
        world.public_key,
        preshared={ex.BRANCH_B: digest(PRESHARED)},
    )
    with tempfile.TemporaryDirectory() as folder:
        own, shared = Path(folder) / "own.key", Path(folder) / "shared.key"
        own.write_text(b64encode(PRIVATE).decode())
        shared.write_text(b64encode(PRESHARED).decode())
        for op in diff(plan, {}):
            command = render_op(op, full=True)
            if op.key.kind is Kind.FILTER:
                first, _, text = command.partition("\n")
                command = f"{first.partition('#')[0]} <<'END'\n{text}\nEND"
            command = command.replace("private-key KEY_FILE", f"private-key {own}")
            shell(command.replace("preshared-key KEY_FILE", f"preshared-key {shared}"))
    left = diff(plan, await world.kernel.observe(plan.keys()))
    assert {op.key.kind for op in left} == {Kind.FILTER}, left  # a person's table has no seal
    await world.kernel.apply(left)
    assert await is_met(world, plan)
    undo = diff({}, await world.kernel.observe(()))
    for op in undo:
        shell(render_op(op))
    assert not await world.kernel.observe(())


async def check_a_port_that_another_tunnel_leaves_is_taken(world: RealWorld) -> None:
    """A new device listens anywhere, so also where another one should; and all ports may move."""
    plan = branch_plan(world)
    keys = sorted(key for key in plan if key.kind is Kind.WIREGUARD)
    first, last = (str(key.ident[0]) for key in (keys[0], keys[-1]))
    tunnel = plan[keys[0]]
    assert isinstance(tunnel, Wireguard)
    port = tunnel.listen_port
    shell(f"ip link add {last} type wireguard && wg set {last} listen-port {port}")
    shell(f"ip link set {last} up")
    await converge(world, plan)
    assert await is_met(world, plan)
    for base in (ex.BRANCH.listen_port_base + step for step in (1, 16, 0)):
        moved = compile_plan(
            replace(ex.BRANCH, listen_port_base=base),
            ex.BRANCH_FACTS,
            ex.BRANCH_STEERING,
            world.public_key,
        )
        await converge(world, moved)
        assert await is_met(world, moved)
    shell(f"ip link del {first}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("", port))
        said = ""
        try:
            await converge(world, plan)
        except KernelError as error:
            said = str(error)
    assert f"UDP port {port} is another program's" in said
    await converge(world, plan)
    assert await is_met(world, plan)


async def check_another_process_finds_what_duplicates_and_replaces_it_as_a_whole(
    world: RealWorld,
) -> None:
    """Nothing is done after a restart. When one filter is missing then, all get a new instance."""
    plan = twice_plan(world)
    await converge(world, plan)
    world.kernel.close()
    world.kernel = LinuxKernel(world.keys)
    assert await is_met(world, plan)
    planes = sorted(key for key in plan if key.kind is Kind.ONCE)
    world.remove(planes[0])
    assert [op.key for op in await converge(world, plan)] == planes[:1]
    assert [op.key for op in await converge(world, plan)] == planes[1:]
    assert await is_met(world, plan)
    listed = shell(
        f"for d in {' '.join(str(k.ident[0]) for k in planes)}; do "
        "tc filter show dev $d ingress; done"
    )
    assert len(set(re.findall(r" id (\d+)", listed))) == 1, listed


async def check_another_process_finds_bonds_and_replaces_them_as_a_whole(world: RealWorld) -> None:
    """Nothing is done after a restart. When one is missing then, all get a new instance at once."""
    plan = bonded_plan(world)
    await converge(world, plan)
    world.kernel.close()
    world.kernel = LinuxKernel(world.keys)
    assert await is_met(world, plan)
    bonds = bonds_of(plan)
    before = _instances(bonds)
    world.remove(bonds[0])
    assert sorted(op.key for op in await converge(world, plan)) == bonds
    assert await is_met(world, plan)
    after = _instances(bonds)
    assert len(before) == len(after) == 1
    assert before != after


async def check_what_one_process_made_of_bonds_another_may_change(world: RealWorld) -> None:
    """All members get its own instance then, which knows nothing of what waits."""
    await converge(world, bonded_plan(world, bonded_over((1, 1), (2, 2))))
    world.kernel.close()
    world.kernel = LinuxKernel(world.keys)
    plan = bonded_plan(world, bonded_over((1, 1), (1, 2), (2, 2)))
    await converge(world, plan)
    assert await is_met(world, plan)
    assert len(_instances(bonds_of(plan))) == 1


def _instances(bonds: list[Key]) -> set[str]:
    shown = f"egress pref {BOND_PRIORITY}"
    listed = [shell(f"tc filter show dev {key.ident[0]} {shown}") for key in bonds]
    return {program for text in listed for program in re.findall(r" id (\d+)", text)}


async def check_a_firewall_that_does_not_load_changes_nothing(world: RealWorld) -> None:
    plan = branch_plan(world)
    await converge(world, plan)
    broken = Filter("other", "table inet branchline { chain input { no such thing } }\n")
    said = ""
    try:
        await world.kernel.apply([Change(FILTER_KEY, plan[FILTER_KEY], broken)])
    except KernelError as error:
        said = str(error)
    assert "syntax error" in said
    assert await is_met(world, plan)


async def check_all_features_are_there(world: RealWorld) -> None:
    before = await world.kernel.observe(())
    shaping = await world.kernel.missing_for_shaping(has_shares=True)
    missing = (*await missing_features(), *shaping)
    assert missing == (), missing
    assert await world.kernel.observe(()) == before


async def check_the_kernels_own_threads_may_interrupt_us(_: RealWorld) -> None:
    """As sched_getattr(2) tells, in another process, since ours stays as it is."""
    program = """
import ctypes, os
from appliance.kernel import schedule
os.nice(3)
nice = os.getpriority(os.PRIO_PROCESS, 0)
schedule.let_others_interrupt()
told, number = ctypes.create_string_buffer(48), schedule._SYSCALLS[os.uname().machine] + 1
assert ctypes.CDLL(None).syscall(number, 0, told, 48, 0) == 0
told = schedule._ATTRIBUTES.unpack(told.raw)
assert told[1] == schedule._OTHER and told[3] == nice and told[5] == schedule.SLICE_NS, told
"""
    shell(f"{sys.executable} -c '{program}'")


async def check_a_second_supervisor_is_refused(_: RealWorld) -> None:
    lock = SupervisorLock()
    program = "from appliance.kernel.lock import *; SupervisorLock()"
    command = f"{sys.executable} -c '{program}'"
    assert AlreadyRunningError.__name__ in shell(f"{command} 2>&1 || true")
    shell(f"unshare --net {command}")
    lock.close()
    SupervisorLock().close()


async def check_named_counters_count_what_goes_through_a_plane(world: RealWorld) -> None:
    plan = branch_plan(world)
    await converge(world, plan)
    site = ex.BRANCH.peers[0].site_id
    plane = Plane(Slot(2), Slot(1))  # DEFAULT is on 2-1, which a detour leads to 1-1
    names = [sent_counter(p, site) for p in (plane, Plane(Slot(1), Slot(1)))]
    names += [received_counter(plane, site), "no_such_counter"]
    assert world.kernel.read_counters(names) == (0, 0, 0, None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("192.0.2.1", 0))
        for _ in range(7):
            sender.sendto(b"x", ("192.168.3.7", 9))
    assert world.kernel.read_counters(names) == (0, 7, 0, None)
    assert await is_met(world, plan)  # counting is no drift


async def check_the_flows_of_an_uplink_end_and_no_others(world: RealWorld) -> None:
    await converge(world, branch_plan(world))
    for port, mark in ((1, 0x12000000), (2, 0x22000000), (3, 0x11000000), (4, 0), (5, 0x12000042)):
        shell(
            f"conntrack -I -p udp -s 192.0.2.9 -d 198.51.100.7 --sport 9 --dport {port} "
            f"--timeout 100 --mark {mark}"
        )

    def ports() -> list[int]:
        listed = shell("conntrack -L -p udp --orig-src 192.0.2.9").splitlines()
        return sorted(int(line.split("dport=")[1].split()[0]) for line in listed)

    assert ports() == [1, 2, 3, 4, 5], shell("conntrack -L")
    await world.kernel.end_flows(0x12000000, 0xFF000000)
    assert ports() == [2, 3, 4]
    await world.kernel.end_flows(0x02000000, 0x0F000000)
    assert ports() == [3, 4]
    await world.kernel.end_flows(0x02000000, 0x0F000000)  # there are none


async def check_the_mark_of_one_flow_is_read_and_set(world: RealWorld) -> None:
    for source, to in (("192.0.2.9", "198.51.100.7"), ("2001:db8::9", "2001:db8:f::7")):
        shell(
            f"conntrack -I -p udp -s {source} -d {to} --sport 9 --dport 443 --timeout 100 "
            f"--mark {0xF2000042}"
        )
        flow = FlowKey(17, ip_address(source), 9, ip_address(to), 443)
        other = flow._replace(port=444)
        assert world.kernel.mark_of(flow) == (0xF2000042, False)
        assert world.kernel.mark_of(other) is None
        world.kernel.mark_flow(flow, 0x10000000, 0xF0000000)
        world.kernel.mark_flow(other, 0x10000000, 0xF0000000)  # has ended meanwhile
        assert world.kernel.mark_of(flow) == (0x12000042, False)
        assert world.kernel.mark_of(other) is None
    listed = shell("conntrack -L -p udp --orig-port-dst 443").splitlines()
    assert len([line for line in listed if f"mark={0x12000042} " in line]) == 2, listed


async def check_logged_packets_come_with_what_is_known_of_them(world: RealWorld) -> None:
    shell(
        "nft add table inet logs; "
        "nft 'add chain inet logs out { type filter hook output priority 0; }'; "
        f"nft add rule inet logs out udp dport 9 log group {LOG_GROUP} snaplen 40 queue-threshold 1"
    )
    try:
        async with aclosing(world.kernel.follow_logged()) as logged:
            assert await anext(logged) == ()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for port in (9, 10, 9):
                    sender.sendto(bytes(100), ("127.0.0.1", port))
            async with asyncio.timeout(20):
                copies = await anext(logged)
            assert [(len(each.octets), each.device, each.sender) for each in copies] == [
                (40, "", None)
            ] * 2
            refused = ""
            try:
                await anext(world.kernel.follow_logged())
            except KernelError as error:
                refused = error.detail
            assert refused.startswith("another program reads group 177"), refused
    finally:
        shell("nft delete table inet logs")


async def check_the_monitor_tells_what_others_do_and_only_that(world: RealWorld) -> None:
    monitor = Monitor(world.kernel.ports)
    plan = branch_plan(world)
    await converge(world, plan)
    seen = set(await monitor.read())
    assert {n.name for n in seen if isinstance(n, LinkChanged)} >= {"bl-1-1", "bl-mgmt"}
    # Not ours: the kernel's own answer to new devices and addresses.
    assert not {n for n in seen if isinstance(n, ObjectsChanged | Resync)}, seen
    world.kernel.steer([])
    for command, notice in (
        ("ip link set lan0 down", LinkChanged("lan0", True, False, False, 1500, 0)),
        ("ip link del lan0", LinkChanged("lan0", False, False, False, 1500, 0)),
        ("ip nexthop add id 9 blackhole proto 177", ObjectsChanged(Kind.NEXTHOP)),
        ("ip rule add pref 20940 lookup 9 proto 177", ObjectsChanged(Kind.RULE)),
        ("ip route add 192.0.2.77/32 dev eth0 proto 177", ObjectsChanged(Kind.ROUTE)),
        ("ip -6 route add default via fe80::9 dev eth0 proto ra", ()),
        ("ip address add 198.51.100.9/24 dev eth0", None),
        ("ip route add 192.0.2.78/32 dev eth0", ()),
    ):
        shell(command)
        if notice == ():
            assert await _nothing(monitor)
            continue
        expected = notice or AddressesChanged(socket.if_nametoindex("eth0"))
        assert await _told(monitor, expected), command
    monitor.close()


async def _told(monitor: Monitor, expected: Notice) -> bool:
    found: set[Notice] = set()
    try:
        async with asyncio.timeout(2):
            while expected not in found:
                found |= {_anywhere(notice) for notice in await monitor.read()}
    except TimeoutError:
        print("told instead:", found)
        return False
    return True


def _anywhere(notice: Notice) -> Notice:
    """Without the number that the device happens to have."""
    return replace(notice, ifindex=0) if isinstance(notice, LinkChanged) else notice


async def _nothing(monitor: Monitor) -> bool:
    try:
        async with asyncio.timeout(0.2):
            await monitor.read()
    except TimeoutError:
        return True
    return False


async def check_an_overrun_asks_for_everything_anew(_: RealWorld) -> None:
    monitor = Monitor(buffer=2048)
    shell("for i in $(seq 60); do echo link set eth0 mtu $((1300 + i)); done | ip -batch -")
    assert Resync() in await monitor.read()
    shell("ip link set eth0 mtu 1500")
    assert await _told(monitor, LinkChanged("eth0", True, True, True, 1500, 0))
    monitor.close()


async def check_facts_are_what_ip_shows(_: RealWorld) -> None:
    reader = FactsReader()
    shell(
        "ip address add 198.51.100.9/24 dev eth0; ip address add 2001:db8::9/64 dev eth0 nodad; "
        "ip link set wwan0 down"
    )
    facts = reader.read()
    assert sorted(map(str, facts["eth0"].addresses)) == ["198.51.100.9/24", "2001:db8::9/64"]
    assert (facts["eth0"].has_carrier, facts["wwan0"].has_carrier) == (True, False)
    assert not facts["wwan0"].is_up
    reader.close()


async def check_no_key_is_where_others_can_read_it(world: RealWorld) -> None:
    """The private key is in the kernel, and in nothing that we print."""
    plan = branch_plan(world)
    await converge(world, plan)
    secret = b64encode(PRIVATE).decode()
    assert secret in shell("wg show bl-1-1 private-key")
    assert secret not in "".join(render_op(op, full=True) for op in diff(plan, {}))
    assert secret not in repr(world.keys)
    assert repr(PRIVATE) not in repr(world.keys)


async def check_the_first_route_of_a_boot_is_safe(world: RealWorld) -> None:
    """With `lo` down an IPv4 route by nexthop id would crash the kernel: we bring it up first."""
    shell("ip link set lo down")
    hop, route = Key(Kind.NEXTHOP, (0x0B0000F0,)), Key(Kind.ROUTE, (77, "192.0.2.0/24", 100))
    world.kernel.steer([Add(hop, Nexthop(4, "eth0")), Add(route, Route(nexthop=0x0B0000F0))])
    assert "state UNKNOWN" in shell("ip link show lo")


CHECKS = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}
