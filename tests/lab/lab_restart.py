"""The supervisor dies, or somebody else changes the kernel: traffic goes on, the plan comes back.

a-lan0-h1 --- [a] === fibre 10 ms ===+              +=== fibre 10 ms === [b] --- b-lan0-h1
                  === dsl   20 ms ===+-- internet --+=== dsl   20 ms ===
"""

import base64

from lab.fleet import Fleet
from lab.monitor import KernelMonitor
from lab.topology import Lab, Site
from tests.lab.boxes import SHORT_HOLD, branch, hosts, left, operations, pair

COLD_STARTS = True

FOREIGN = (
    "link add mine type dummy",
    "link set mine up",
    "addr add 192.0.2.129/28 dev mine",
    "route add 192.0.2.160/28 dev mine",
    "route add 192.0.2.176/28 dev mine table 77",
    "rule add from 192.0.2.129 table 77 pref 15000",
)


def story_killed_and_started_again(lab: Lab) -> None:
    fleet = pair(lab)
    # Somewhere else than at home, so that a restart that forgets would move it back.
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    fleet.sites["b"].uplinks["fibre"].down.cut()
    lab.wait_until(
        lambda: fleet.carriers("a", "voice", "b")[0].endswith("-2"), 10, "voice is on b's dsl"
    )
    elsewhere = list(fleet.carriers("a", "voice", "b"))
    a, supervisor = fleet.sites["a"], fleet.supervisor("a")
    lab.sleep_virtual(3)
    stream = lab.stream(*hosts(fleet), pps=500, dscp=46)
    back = lab.stream(*reversed(hosts(fleet)), pps=100, dscp=46, port=9001)
    lab.sleep_virtual(1)
    monitor = KernelMonitor(a, "link", "address", "route", "rule", "nexthop")
    supervisor.kill()
    lab.sleep_virtual(3)
    supervisor.start(60)
    fleet.wait_carriers("a", "voice", "b", elsewhere, 10)
    lab.sleep_virtual(5)
    ops = operations(fleet, "a")
    lab.record("restart_ops", ops, "operations")
    lab.check(ops == 0, f"the restarted supervisor applies {ops} operations")
    changes = [notice.text for notice in monitor.notices()]
    lab.check(not changes, f"the kernel tells of no change: {changes[:3]}")
    for each in (stream, back):
        lost = each.stop().lost
        lab.check(lost == 0, f"{lost} packets are lost")
    lab.check(not left(fleet, "a"), "nothing is outstanding")


def story_drift_is_repaired(lab: Lab) -> None:
    fleet = pair(lab)
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    a = fleet.sites["a"]
    a.ip(*FOREIGN)
    a.nft("table inet mine { chain keep { type filter hook input priority 50; }; }")
    foreign = foreign_objects(a)
    peer = a.run(["wg", "show", "bl-1-1", "peers"]).strip()
    b_network = str(fleet.sites["b"].lans["lan0"].address4.network)
    voice_table = str(0xB1000000 + 0x101)
    for silent in (  # of what the kernel does not tell us: found when all is looked at again
        ["nft", "flush", "table", "inet", "branchline"],
        ["nft", "delete", "table", "netdev", "branchline"],
        ["wg", "set", "bl-1-1", "peer", peer, "remove"],
    ):
        a.run(silent)
    what = "firewall, counters and a tunnel's peer are gone"
    took_s = lab.wait_until(lambda: is_in_force(lab, fleet), 75, f"{what}: mended", poll_s=5)
    lab.record("repair", took_s, "s", fault=what)
    faults = {
        "a class route is deleted": ["ip", "route", "del", b_network, "table", voice_table],
        "a rule is deleted": ["ip", "rule", "del", "pref", "20101"],
        "a tunnel's device is deleted": ["ip", "link", "del", "bl-1-2"],
        "a tunnel's device is set down": ["ip", "link", "set", "bl-1-1", "down"],
        "the management device is set down": ["ip", "link", "set", "bl-mgmt", "down"],
        "all nexthops are flushed": ["ip", "nexthop", "flush"],
    }
    for what, command in faults.items():
        a.run(command)
        took_s = lab.wait_until(lambda: is_in_force(lab, fleet), 20, f"{what}: mended", poll_s=0.5)
        lab.record("repair", took_s, "s", fault=what)
    lab.check(foreign_objects(a) == foreign, "foreign devices, routes, rules and tables stay")
    fleet.wait_up(60)
    lab.check(lab.ping(*hosts(fleet), count=3).received == 3, "and traffic flows")


def is_in_force(lab: Lab, fleet: Fleet) -> bool:
    """Nothing outstanding on a, and the hosts reach each other."""
    sender, receiver = hosts(fleet)
    return not left(fleet, "a") and lab.ping(sender, receiver, count=1, wait_s=0.3).received == 1


def foreign_objects(site: Site) -> list[str]:
    """What does not belong to the product on a site."""
    listings = (
        ["ip", "-o", "addr", "show", "dev", "mine"],
        ["ip", "route", "show", "dev", "mine"],
        ["ip", "route", "show", "table", "77"],
        ["ip", "rule", "show", "pref", "15000"],
        ["nft", "list", "table", "inet", "mine"],
    )
    return [site.run(listing) for listing in listings]


def story_keys_are_rotated_while_tunnels_are_made_anew(lab: Lab) -> None:
    files = ("shared.psk", "stamp.key")

    def write_keys(fleet: Fleet, octet: int) -> None:
        key = base64.b64encode(bytes([octet] * 32)).decode() + "\n"
        for path in (fleet.folder(name) / file for name in "ab" for file in files):
            path.touch(mode=0o600)
            path.write_text(key)

    def preshared(fleet: Fleet) -> set[str]:
        """`wg` tells device, peer and key in each line."""
        shown = [fleet.sites[name].run(["wg", "show", "all", "preshared-keys"]) for name in "ab"]
        return {line.split()[2] for text in shown for line in text.splitlines()}

    fleet = Fleet(lab, policies=SHORT_HOLD, probing={"interval": "50 ms", "key_file": files[1]})
    for number, name in enumerate("ab", start=1):
        fleet.add(
            branch(lab, name),
            number,
            lambda config: config["peers"][0].update(preshared_key_file=files[0]),
        )
    write_keys(fleet, 1)
    fleet.start()
    fleet.wait_up()
    before = preshared(fleet)
    lab.check(len(before) == 1, "all tunnels have the preshared key")
    write_keys(fleet, 2)
    a = fleet.sites["a"]
    a.ip(*(f"link del bl-{plane}" for plane in ("1-1", "1-2", "2-1", "2-2")))
    for name in "ab":
        told = fleet.supervisor(name).command("reload")
        lab.check("configuration" in told, f"{name} reloads: {told.strip()}")
    lab.say(f"all paths are up after {fleet.wait_up(60):.1f} s")
    after = preshared(fleet)
    lab.check(len(after) == 1 and not after & before, "all tunnels have the new preshared key")
    for name in "ab":
        refused = fleet.supervisor(name).status()["counters"]["probes_refused"]["forged"]
        lab.sleep_virtual(1)
        again = fleet.supervisor(name).status()["counters"]["probes_refused"]["forged"]
        lab.check(again == refused, f"{name} takes no probe for forged any more")
        plan = left(fleet, name)
        lab.check(not plan, f"nothing is outstanding on {name}: {plan}")
    lab.check(lab.ping(*hosts(fleet), count=3).received == 3, "traffic flows")
