"""What must not matter, and what must be said: clocks, disks, floods of notices, old kernels.

a-lan0-h1 --- [a] === fibre 10 ms ===+              +=== fibre 10 ms === [b] --- b-lan0-h1
                  === dsl   20 ms ===+-- internet --+=== dsl   20 ms ===
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.fleet import Fleet
from lab.line import Line
from lab.topology import CommandError, Lab, Site
from tests.lab.boxes import SHORT_HOLD, branch, hosts, left, moves, operations, pair, warnings
from tests.lab.lab_uplinks import Provider, dhcpcd_pid


def story_the_wall_clock_jumps(lab: Lab) -> None:
    fleet = pair(lab)
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    lab.sleep_virtual(3)
    before = len(moves(fleet, "a"))
    stream = lab.stream(*hosts(fleet), dscp=46)
    truth = time.time()
    for jump_s in (-3600.0, 86400.0, -86400.0 + 3600.0):
        time.clock_settime(time.CLOCK_REALTIME, time.time() + jump_s)
        lab.sleep_virtual(2)
        states = {p["path"]: p["state"] for p in fleet.supervisor("a").status()["paths"]}
        lab.check(set(states.values()) == {"up"}, f"{jump_s:+.0f} s: {states}")
    lab.check(abs(time.time() - truth - 6) < 2, "the clock is right again")
    lab.check(len(moves(fleet, "a")) == before, "no class has moved")
    delay_us = fleet.path("a", "b/1-1")["delay_us"]
    lab.check(20_000 <= delay_us < 23_000, f"the delay is still measured as {delay_us} us")
    lab.check(stream.stop().lost == 0, "no packet was lost")


def story_a_disk_is_full_and_another_read_only(lab: Lab) -> None:
    fleet = Fleet(lab, policies=[{"class": "voice", "hold": "5 s"}])
    for number, name in enumerate("ab", start=1):
        fleet.add(branch(lab, name), number)
    a, disk = fleet.sites["a"], str(fleet.folder("a") / "recordings")
    for name, options in {"a": "size=256k", "b": "ro"}.items():
        folder = str(fleet.folder(name) / "recordings")
        # In the box's own mount namespace, where its supervisor lives.
        fleet.sites[name].run(["mkdir", folder])
        fleet.sites[name].run(["busybox", "mount", "-t", "tmpfs", "-o", options, "tmpfs", folder])
    a.run(["sh", "-c", f"dd if=/dev/zero of={disk}/filler bs=4k 2>&1 | tail -1"])
    fleet.start()
    fleet.wait_up()
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    for name, what in {"a": "full", "b": "read-only"}.items():
        lab.wait_until(lambda: "recorder" in warnings(fleet, name), 60, f"{what}: {name} warns")  # noqa: B023
        lab.say(warnings(fleet, name)["recorder"])
    fleet.sites["b"].uplinks["fibre"].down.cut()
    fleet.wait_carriers("a", "voice", "b", ["*-2"], 10)
    answers = lab.ping(*hosts(fleet), count=3, dscp=46).received
    lab.check(answers == 3, "failover works all the same")
    a.run(["rm", f"{disk}/filler"])
    lab.wait_until(lambda: "recorder" not in warnings(fleet, "a"), 120, "room again: it ends")
    lab.check("recorder" in warnings(fleet, "b"), "b goes on to warn")


def story_all_of_the_state_is_on_a_disk_that_is_full_and_then_read_only(lab: Lab) -> None:
    """For longer than a lease of the DHCP uplink, whose modem is pulled out meanwhile."""
    a = lab.site("a")
    a.uplink("fibre", down=Line(delay_ms=10))
    lte = a.uplink("lte", down=Line(delay_ms=20))
    a.lan()
    lte.addressing, provider = "dhcp", Provider(lab, lte)  # with leases of two minutes
    provider.serve()
    fleet = Fleet(lab, policies=SHORT_HOLD, probing={"interval": "200 ms"})
    fleet.add(a, 1)
    fleet.add(branch(lab, "b"), 2)
    fleet.start()
    supervisor, state = fleet.supervisor("a"), fleet.folder("a")
    supervisor.stop()
    copy = "/var/lib/branchline"  # the box's own
    a.run(["cp", "-a", f"{state}/.", copy])
    a.run(["busybox", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(state)])
    a.run(["cp", "-a", f"{copy}/.", str(state)])
    supervisor.start()
    fleet.wait_up(60)
    a.run(["sh", "-c", f"dd if=/dev/zero of={state}/filler bs=4k 2>&1 | tail -1"])
    lab.wait_until(lambda: "recorder" in warnings(fleet, "a"), 60, "full: it warns")
    stream = lab.stream(*hosts(fleet), pps=20, dscp=46)
    client = dhcpcd_pid(a, lte.device)
    lab.sleep_virtual(170)  # a lease, and as long as its client may be silent after it
    lab.check(dhcpcd_pid(a, lte.device) == client, "the DHCP client lives")
    states = {p["path"]: p["state"] for p in supervisor.status()["paths"]}
    lab.check(set(states.values()) == {"up"}, f"after the first lease: {states}")
    lab.check(set(warnings(fleet, "a")) == {"recorder"}, f"warnings: {warnings(fleet, 'a')}")

    supervisor.kill()  # what it writes to would keep the disk from becoming read-only
    a.run(["busybox", "mount", "-o", "remount,ro", str(state)])
    supervisor.start(60)
    fleet.wait_up(60)
    lte.delete_device()
    lab.wait_until(lambda: "uplink-down" in warnings(fleet, "a"), 10, "the modem is gone")
    lab.wait_until(lambda: dhcpcd_pid(a, lte.device) is None, 30, "and its DHCP client")
    lost = stream.stop().lost
    lab.check(lost == 0, f"forwarding went on: {lost} packets of a call by the other line are lost")
    provider.stop()
    lte.create_device()
    provider.serve()
    lab.say(f"another modem: all paths are up after {fleet.wait_up(90):.0f} s")
    supervisor.kill()
    supervisor.start(60)
    fleet.wait_up(60)
    lab.wait_until(
        lambda: {"recorder", "last-good"} == set(warnings(fleet, "a")), 60, "it starts, and warns"
    )
    lab.check(lab.ping(*hosts(fleet), count=3).received == 3, "traffic flows")


def story_notices_are_lost(lab: Lab) -> None:
    """20,000 foreign routes at once overrun the supervisor's socket; it reads everything anew."""
    fleet = pair(lab)
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    a, supervisor = fleet.sites["a"], fleet.supervisor("a")
    supervisor.pause()
    a.ip("link add mine type dummy", "link set mine up")
    a.ip(*(f"route add 10.{n >> 8}.{n & 255}.0/24 dev mine" for n in range(20_000)))
    a.ip("-6 rule del pref 20101")
    supervisor.resume()
    lab.wait_until(lambda: not left(fleet, "a"), 30, "the plan is in force")
    lab.check("notices were lost" in supervisor.log(), "the overrun was seen")
    lab.check("20101:" in a.run(["ip", "-6", "rule"]), "what was lost in it has been mended")
    lab.check(lab.ping(*hosts(fleet), count=3).received == 3, "traffic flows")


def story_a_kernel_without_wireguard(lab: Lab) -> None:
    without(lab, "wireguard", {}, "WireGuard", "modprobe wireguard")


def story_a_kernel_without_cake(lab: Lab) -> None:
    rates = {"up": "10 Mbit/s", "down": "10 Mbit/s"}
    without(lab, "sch_cake", {"shaping": rates}, "the CAKE shaper", "CONFIG_NET_SCH_CAKE")


def without(lab: Lab, module: str, uplink: dict[str, Any], *words: str) -> None:
    """A box that needs a module of the kernel, and one that has none of it."""
    site = branch(lab, "a")
    fleet = Fleet(lab)
    fleet.add(site, 1, lambda config: config["uplinks"][0].update(uplink))
    fleet.add(branch(lab, "b"), 2)
    with lacking(site, module):
        supervisor = site.supervise(fleet.config("a"), wait_s=None)
        lab.wait_until(lambda: not supervisor.is_running, 30, "the supervisor gives up")
        told = supervisor.log()
        lab.say(told.strip()[-500:])
        for word in words:
            lab.check(word in told, f"it says: {word}")


@contextmanager
def lacking(site: Site, module: str) -> Iterator[None]:
    """The kernel is without a module, which nobody can load."""
    site.run(["modprobe", "-r", module])
    blacklist = "/etc/modprobe.d/lab.conf"
    site.run(["sh", "-c", f"echo install {module} /bin/false > {blacklist}"])
    try:
        yield
    finally:
        site.run(["rm", blacklist])


def story_shaping_is_wanted_of_a_running_box(lab: Lab) -> None:
    """First without CAKE in the kernel, then with it."""
    fleet = pair(lab)
    site, supervisor = fleet.sites["a"], fleet.supervisor("a")
    config = fleet.config("a")
    config["uplinks"][0]["shaping"] = {"up": "10 Mbit/s", "down": "10 Mbit/s"}
    supervisor.write_config(config)
    with lacking(site, "sch_cake"):
        try:
            told = supervisor.command("reload")
        except CommandError as error:
            told = str(error)
        lab.say(told)
        lab.check("this box lacks the CAKE shaper" in told, "it is told what is missing")
        lab.check("CONFIG_NET_SCH_CAKE" in told, "and what to do")
        devices = site.run(["ip", "-br", "link"])
        lab.check("bl-probe" not in devices and "bl-up1" not in devices, "nothing was changed")
    supervisor.command("reload")
    lab.check("qdisc cake" in site.run(["tc", "qdisc"]), "with it, lines are shaped")
    lab.check(lab.ping(*hosts(fleet), count=3).received == 3, "traffic flows")
    lab.check(not warnings(fleet, "a"), f"a warns of nothing: {warnings(fleet, 'a')}")


def story_a_typing_error_on_a_running_box(lab: Lab) -> None:
    fleet = pair(lab)
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    supervisor = fleet.supervisor("a")
    lab.wait_until(lambda: (supervisor.directory / "last-good.yaml").exists(), 30, "kept as good")
    broken = fleet.config("a")
    broken["uplinks"][0]["colour"] = "red"
    supervisor.write_config(json.dumps(broken))
    supervisor.kill()
    supervisor.start(60)
    refused = supervisor.status()["config"]["refused"]
    lab.say(f"refused: {refused}")
    lab.check(any("colour" in str(problem) for problem in refused), "the status names the error")
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 30)
    lab.check(lab.ping(*hosts(fleet), count=3).received == 3, "the last good configuration serves")
    ops = operations(fleet, "a")
    lab.check(ops == 0, f"{ops} operations were needed")


# Datagrams to so many ports, a flow each.
SCATTER = """
import itertools, socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    for port in itertools.cycle(range(20000, 21000)):
        s.sendto(b"x", (sys.argv[1], port))
        time.sleep(0.001)
"""


def story_the_table_of_flows_is_full(lab: Lab) -> None:
    """The kernel makes room by ending flows that were never answered, and no others."""
    fleet = pair(lab)
    one, other = hosts(fleet)
    fleet.wait_carriers("a", "default", "b", ["1-1"], 60)
    sessions = lab.tcp_sessions(one, other, count=20, interval_s=0.05)
    lab.sleep_virtual(1)
    most = Path("/proc/sys/net/netfilter/nf_conntrack_max")  # of all network namespaces
    usual = most.read_text()
    most.write_text("300")
    try:
        # Without an end, as the kernel makes room down to 95 of 100 now and then.
        scatter = one.background(["python3", "-c", SCATTER, other.address()], name="scatter")
        took_s = lab.wait_until(lambda: "flow-table-full" in warnings(fleet, "a"), 20, "a warns")
        lab.say(f"after {took_s:.1f} s: {warnings(fleet, 'a')['flow-table-full']}")
        lab.check(lab.ping(one, other, count=2).received == 0, "new flows are dropped")
        states = {p["state"] for p in fleet.supervisor("a").status()["paths"]}
        lab.check(states == {"up"}, "all paths are up: probes are not tracked")
        fleet.sites["b"].uplinks["fibre"].down.cut()
        fleet.wait_carriers("a", "default", "b", ["*-2"], 5)
        lab.sleep_virtual(1)
        kept = sessions.check()
        lab.check(kept.survived == 20, f"flows under way survive failover meanwhile: {kept}")
        scatter.stop()
    finally:
        most.write_text(usual)
    lab.wait_until(lambda: "flow-table-full" not in warnings(fleet, "a"), 20, "with room it ends")
    lab.check(lab.ping(one, other, count=3).received == 3, "and new flows pass")
    sessions.stop()
