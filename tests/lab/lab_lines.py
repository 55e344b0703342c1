"""Uplinks as providers make them: leases, NAT, small MTUs, devices that come and go.

a-lan0-h1 --- [a] === uplinks of all kinds ===+-- internet --+=== fibre === [b] --- b-lan0-h1
"""

import base64
from pathlib import Path
from typing import Any

from lab.fleet import Fleet
from lab.line import Line
from lab.topology import Lab, Site
from tests.lab.boxes import SHORT_HOLD, branch, hosts, warnings


def gateway(lab: Lab, name: str = "b") -> Site:
    """A site with one good uplink."""
    site = lab.site(name)
    site.uplink("fibre", down=Line(delay_ms=10))
    site.lan()
    return site


def story_a_lease_and_another_address(lab: Lab) -> None:
    a, b = lab.site("a"), gateway(lab)
    a.uplink("fibre", addressing="dhcp", down=Line(delay_ms=10))
    a.lan()
    fleet = Fleet(lab, policies=SHORT_HOLD)
    fleet.add(a, 1)
    fleet.add(b, 2)
    fleet.start()
    fleet.wait_up(60)
    lab.check(lab.ping(*hosts(fleet), count=3).received == 3, "with a lease, traffic flows")
    old = a.uplinks["fibre"].facts.address4
    a.uplinks["fibre"].renumber()
    a.uplinks["fibre"].unplug()  # as a modem does that gets another address: the client asks anew
    lab.sleep_virtual(1)
    a.uplinks["fibre"].plug_in()
    new = a.uplinks["fibre"].facts.address4
    lab.check(old != new, f"the provider gives {new} instead of {old}")
    took_s = lab.wait_until(
        lambda: lab.ping(*hosts(fleet), count=1, wait_s=0.5).received, 120, "traffic flows again"
    )
    lab.record("renumbered", took_s, "s")
    (uplink,) = fleet.supervisor("a").status()["uplinks"]
    lab.check(not any(str(old) in text for text in uplink["addresses"]), "the old address is gone")


def story_a_modem_is_pulled_out_and_put_back(lab: Lab) -> None:
    fleet = Fleet(lab, policies=SHORT_HOLD)
    a, b = branch(lab, "a"), gateway(lab)
    fleet.add(a, 1)
    fleet.add(b, 2)
    fleet.start()
    fleet.wait_up()
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    a.uplinks["fibre"].delete_device()
    fleet.wait_carriers("a", "voice", "b", ["2-1"], 10)
    # The far end sees silence only, and moves some 40 ms later.
    fleet.wait_carriers("b", "voice", "a", ["*-2"], 10)
    lab.check("uplink-down" in warnings(fleet, "a"), "the missing device is told")
    lab.check(lab.ping(*hosts(fleet), count=3, dscp=46).received == 3, "traffic goes on")
    lab.sleep_virtual(5)
    a.uplinks["fibre"].create_device()
    took_s = fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    lab.record("device_back", took_s, "s", hold_s=5)
    lab.check("uplink-down" not in warnings(fleet, "a"), "back again, the warning ends")


def story_behind_nat(lab: Lab) -> None:
    a, b = lab.site("a"), gateway(lab)
    a.uplink("fibre", nat=True, down=Line(delay_ms=10))
    a.lan()
    fleet = Fleet(lab, policies=SHORT_HOLD)
    fleet.add(a, 1)
    fleet.add(b, 2)
    fleet.start()
    fleet.wait_up(60)
    lab.check(lab.ping(*hosts(fleet), count=3).received == 3, "a site behind NAT reaches others")
    lab.check(lab.ping(*reversed(hosts(fleet)), count=3).received == 3, "and is reached")
    keepalive = a.run(["wg", "show", "bl-1-1", "persistent-keepalive"]).split()[1]
    lab.check(keepalive == "25", f"a keeps the mapping open every {keepalive} s")
    keepalive = b.run(["wg", "show", "bl-1-1", "persistent-keepalive"]).split()[1]
    lab.check(keepalive == "off", "b, which has a public address, does not")


def story_the_path_mtu_drops_and_nobody_tells(lab: Lab) -> None:
    a, b = lab.site("a"), gateway(lab)
    uplink = a.uplink("fibre", mtu=1500, icmp_filtered=True, down=Line(delay_ms=10))
    a.lan()
    fleet = Fleet(lab, policies=SHORT_HOLD, families=(6,))
    fleet.add(a, 1, v6_only)
    fleet.add(b, 2)
    fleet.start()
    fleet.wait_up()
    sender, receiver = hosts(fleet)
    before = lab.iperf3(sender, receiver, seconds=1).forward_mbit
    sessions = lab.tcp_sessions(sender, receiver, count=10)
    uplink.set_mtu(1400)
    took_s = lab.wait_until(
        lambda: (fleet.path("a", "b/1-1")["mtu"] or 1420) < 1400, 120, "a finds the smaller MTU"
    )
    found = fleet.path("a", "b/1-1")["mtu"]
    lab.record("path_mtu", took_s, "s", found=found)
    lab.check(1280 <= found <= 1320, f"inner packets of {found} octets fit into 1400")
    after = lab.iperf3(sender, receiver, seconds=1).forward_mbit
    lab.check(after > 0.7 * before, f"TCP carries {after:.0f} Mbit/s, before {before:.0f}")
    back = lab.iperf3(sender, receiver, seconds=1, direction="backward").backward_mbit
    lab.check(back > 0.5 * before, f"and {back:.0f} Mbit/s the other way")
    lab.check(sessions.check().survived == 10, "sessions from before live on")
    sessions.stop()


def v6_only(config: dict[str, Any]) -> None:
    for uplink in config["uplinks"]:
        for key in ("address", "gateway"):
            uplink[key] = [text for text in uplink[key] if ":" in text]


def story_probes_are_signed(lab: Lab) -> None:
    key = base64.b64encode(bytes(range(32))).decode() + "\n"
    other = base64.b64encode(bytes(32)).decode() + "\n"
    a, b = branch(lab, "a"), gateway(lab)
    fleet = Fleet(lab, policies=SHORT_HOLD, probing={"interval": "50 ms", "key_file": "stamp.key"})
    fleet.add(a, 1)
    fleet.add(b, 2)
    for name in "ab":
        write_key(fleet.folder(name) / "stamp.key", key)
    fleet.start()
    fleet.wait_up()
    for name in "ab":
        lab.wait_until(lambda n=name: reflected(fleet, n) >= 20, 30, f"{name} answers probes")
        lab.check(forged(fleet, name) == 0, f"with the fleet's key {name} takes none for forged")
    write_key(fleet.folder("b") / "stamp.key", other)
    fleet.supervisor("b").restart(60)
    lab.wait_until(
        lambda: fleet.path("a", "b/1-1")["state"] == "down", 30, "with another key, no path is up"
    )
    lab.wait_until(lambda: forged(fleet, "b") > 0, 30, "b takes them for forged")
    lab.check(reflected(fleet, "b") == 0, "and answered none")
    write_key(fleet.folder("b") / "stamp.key", key)
    fleet.supervisor("b").restart(60)
    fleet.wait_up(30)


def forged(fleet: Fleet, name: str) -> int:
    count: int = fleet.supervisor(name).status()["counters"]["probes_refused"]["forged"]
    return count


def reflected(fleet: Fleet, name: str) -> int:
    count: int = fleet.supervisor(name).status()["counters"]["probes_reflected"]
    return count


def write_key(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
