"""dnsmasq for the hosts of LANs with `dns`: it tells them names, and tells us of which domain.

It decides what dnsmasq is told, and reads nothing of what that says. What dnsmasq learns it puts
into sets of our table (`learned_sets`) itself; so a flow's first packet finds its address there.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from appliance.config.addressing import NFT_TABLE, learned_sets
from appliance.config.intent import Intent, Uplink, is_below, learned_domains
from appliance.contract.ids import INTERNET, Slot
from appliance.core.classify import goes_to
from appliance.core.state import UplinkState
from appliance.services.child import Program

NAME = "dns"  # of its files in the run directory
TURN_S = 3600  # each set is emptied every other turn: what was told may be used for one
SIGN_OF_LIFE = "alive.branchline.internal"  # a name that it knows by itself

# Nothing of this box's own files is told to LANs. A TTL longer than a turn would outlive what was
# learned. All servers are asked at once, and the first answer is taken: a line that has just died
# costs no name a second.
_HEAD = f"""\
# Written by Branchline at every start.
no-resolv
no-hosts
pid-file=
log-facility=-
bind-dynamic
cache-size=10000
dns-forward-max=1000
edns-packet-max=1232
max-ttl={TURN_S}
max-cache-ttl={TURN_S}
all-servers
domain-needed
address=/{SIGN_OF_LIFE}/127.0.0.1
"""


def configuration(intent: Intent, servers: Path) -> str | None:
    """The text of its configuration, or None when no LAN has `dns`.

    `servers` is a file that it reads again on SIGHUP.
    """
    own = [str(each.ip) for lan in intent.lans if lan.dns for each in lan.addresses]
    if not own:
        return None
    lines = [_HEAD, f"servers-file={servers}\n"]
    lines += (f"listen-address={address}\n" for address in own)
    lines += (
        f"nftset={'/'.join(('', domain, ','.join(sets)))}\n" for domain, sets in _sets(intent)
    )
    return "".join(lines)


def _sets(intent: Intent) -> Iterator[tuple[str, list[str]]]:
    """Each domain with the sets for its addresses: also those of the domains that it is below.

    dnsmasq takes the longest domain that fits a name and no other.
    """
    wanted = learned_domains(intent)
    for domain in dict.fromkeys(domain for domains in wanted for domain in domains):
        yield (
            domain,
            [
                f"{version}#inet#{NFT_TABLE}#{name}"
                for domains in wanted
                if any(is_below(domain, each) for each in domains)
                for version in (4, 6)
                for name in learned_sets(domains, version)
            ],
        )


def servers(intent: Intent, uplinks: Mapping[Slot, UplinkState]) -> str:
    """The text of the servers' file: whom to ask, and by which uplinks.

    What is reached by the internet is asked by every uplink that works, by metered ones when there
    is no other. A server inside, at another site or in a LAN, is reached like anybody there.
    """
    working = [u for u in intent.uplinks if u.slot in uplinks and uplinks[u.slot].is_usable]
    chosen = [u for u in working if not u.metered] or working
    lines: list[str] = []
    for server in intent.name_servers:
        if goes_to(intent, server) != INTERNET:
            lines.append(f"server={server}\n")
            continue
        lines += (
            f"server={server}@{uplink.device}\n"
            for uplink in chosen
            if server.version in _families(uplinks, uplink)
        )
    if not intent.name_servers:
        for uplink in chosen:
            facts = uplinks[uplink.slot].facts
            told = facts.name_servers if facts is not None else ()
            lines += (f"server={server}@{uplink.device}\n" for server in told)
    return "".join(dict.fromkeys(lines))


def _families(uplinks: Mapping[Slot, UplinkState], uplink: Uplink) -> set[int]:
    facts = uplinks[uplink.slot].facts
    return {gateway.version for gateway in facts.gateways} if facts is not None else set()


def program(file: Path, text: str, *, is_root: bool) -> Program:
    """How it is run: as the user that we are, since it reads its servers' file again and again.

    It parses what strangers send, and has no right but those that it needs: to write into our sets,
    to listen on port 53, and to ask by a certain device.
    """
    argv: tuple[str, ...] = ("dnsmasq", "--keep-in-foreground", f"--conf-file={file}")
    if is_root:
        argv = (*argv, "--user=root")
    else:
        rights = "-all,+net_admin,+net_bind_service,+net_raw"
        argv = ("setpriv", f"--ambient-caps={rights}", f"--inh-caps={rights}", *argv)
    identity = hashlib.sha256(repr((argv, text)).encode()).hexdigest()
    return Program(NAME, argv, identity)
