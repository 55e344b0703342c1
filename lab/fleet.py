"""Lab sites as Branchline boxes that know each other: keys, configuration files, supervisors.

    fleet = Fleet(lab, classes=[...], policies=[...])
    fleet.add(a, 1)
    fleet.add(b, 2)
    fleet.start()

The configurations are what an operator would write by hand; a story may change those of a box
when it adds it.
"""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lab.machine import Machine
from lab.supervisor import STATE, Supervisor
from lab.topology import Lab, Site

OVERLAY = "fd12:3456:789a::/48"
KEY_NAME = "wireguard.key"

Edit = Callable[[dict[str, Any]], object]

VOICE = {"name": "voice", "match": [{"dscp": "ef"}]}
VOICE_SLA = {"loss": "1 %", "delay": "80 ms", "jitter": "30 ms"}


class Fleet:
    """All boxes of a story. Every box is a peer of every other one unless `hub` names one."""

    def __init__(
        self,
        lab: Lab,
        *,
        classes: Sequence[Mapping[str, Any]] = (VOICE,),
        policies: Sequence[Mapping[str, Any]] = ({"class": "voice", "sla": VOICE_SLA},),
        probing: Mapping[str, Any] | None = None,
        hub: str | None = None,
        families: Sequence[int] = (4,),
    ) -> None:
        """`families` are those of the endpoints that peers are told.

        Without `probing` a box probes as it does by itself (every 50 ms).
        """
        self.lab = lab
        self.sites: dict[str, Site] = {}
        self.numbers: dict[str, int] = {}
        self.public_keys: dict[str, str] = {}
        self._common = {
            "classes": [dict(c) for c in classes],
            "policies": [dict(p) for p in policies],
            "probing": dict(probing or {}),
        }
        self._hub = hub
        self._families = tuple(families)
        self._changes: dict[str, dict[str, Any]] = {}
        self._edits: dict[str, Edit | None] = {}

    def add(self, site: Site, number: int, edit: Edit | None = None, **changes: Any) -> None:
        """Make a site a box of the fleet.

        `changes` replace top-level keys of its configuration; `edit` changes it in place, last.
        """
        directory = self.folder(site.name)
        directory.mkdir(parents=True, exist_ok=True)
        key = directory / KEY_NAME
        private = subprocess.run(["wg", "genkey"], check=True, capture_output=True).stdout
        public = subprocess.run(["wg", "pubkey"], input=private, check=True, capture_output=True)
        key.touch(mode=0o600)
        key.write_bytes(private)
        self.sites[site.name] = site
        self.numbers[site.name] = number
        self.public_keys[site.name] = public.stdout.decode().strip()
        self._changes[site.name] = changes
        self._edits[site.name] = edit

    def start(self, *, wait_s: float | None = 60) -> None:
        """Start all supervisors and wait until each answers."""
        for name, site in self.sites.items():
            site.supervise(self.config(name), wait_s=None)
        for name in self.sites:
            if wait_s is not None:
                self.supervisor(name).wait_ready(wait_s)

    def supervisor(self, name: str) -> Supervisor:
        """The running supervisor of a site. Raises KeyError for one that was never started."""
        supervisor = self.sites[name].supervisor
        if supervisor is None:
            raise KeyError(name)
        return supervisor

    def folder(self, name: str) -> Path:
        """Where a box keeps its configuration, its secrets and its state."""
        return STATE / name

    def config(self, name: str) -> dict[str, Any]:
        """The configuration file of a box, as a mapping."""
        site = self.sites[name]
        uplinks: list[dict[str, Any]] = []
        for uplink in site.uplinks.values():
            entry: dict[str, Any] = {"name": uplink.name, "device": uplink.device}
            if uplink.addressing == "dhcp":
                entry["address"] = "dhcp"
            else:
                facts = uplink.facts
                entry["address"] = [str(facts.address4), str(facts.address6)]
                entry["gateway"] = [str(facts.gateway4.ip), str(facts.gateway6.ip)]
            uplinks.append(entry)
        config = {
            "version": 1,
            "site": {"name": name, "id": self.numbers[name]},
            "fleet": {"overlay": OVERLAY},
            "uplinks": uplinks,
            "lans": [
                {
                    "name": lan.device,
                    "device": lan.device,
                    "address": [str(lan.address4), str(lan.address6)],
                }
                for lan in site.lans.values()
            ],
            "peers": [
                self._peer(other)
                for other in self.sites
                if other != name and self._hub in (None, name, other)
            ],
            **self._common,
            **self._changes[name],
        }
        if edit := self._edits[name]:
            edit(config)
        return config

    def _peer(self, name: str) -> dict[str, Any]:
        site = self.sites[name]
        uplinks: list[dict[str, Any]] = []
        for uplink in site.uplinks.values():
            entry: dict[str, Any] = {"label": uplink.name}
            if uplink.addressing != "dhcp" and uplink.provider is None:
                facts = uplink.facts
                addresses = {4: str(facts.address4.ip), 6: str(facts.address6.ip)}
                entry["endpoint"] = [addresses[family] for family in self._families]
            uplinks.append(entry)
        return {
            "name": name,
            "id": self.numbers[name],
            "public_key": self.public_keys[name],
            "uplinks": uplinks,
            "prefixes": [
                str(address.network)
                for lan in site.lans.values()
                for address in (lan.address4, lan.address6)
            ],
        }

    # -- what boxes say ------------------------------------------------------------------------

    def path(self, name: str, path: str) -> Mapping[str, Any]:
        """One path of a box's status by its name, `b/1-1`."""
        found = [p for p in self.supervisor(name).status()["paths"] if p["path"] == path]
        if not found:
            raise KeyError(path)
        return dict(found[0])

    def carriers(self, name: str, class_name: str, site: str) -> tuple[str, ...]:
        """The planes that carry a class, `("1-1",)`."""
        for entry in self.supervisor(name).status()["classes"]:
            if entry["class_name"] == class_name and entry["site"] == site:
                return tuple(c["path"].rpartition("/")[2] for c in entry["carriers"])
        raise KeyError((class_name, site))

    def wait_up(self, timeout_s: float = 30) -> float:
        """Until every path of every box is measured and up; the virtual seconds it took."""
        return self.lab.wait_until(
            lambda: all(
                path["state"] == "up"
                for name in self.sites
                for path in self.supervisor(name).status()["paths"]
            ),
            timeout_s,
            "all paths of all sites are up",
            poll_s=0.25,
        )

    def wait_carriers(
        self, name: str, class_name: str, site: str, planes: Sequence[str], timeout_s: float
    ) -> float:
        """Until these planes carry a class.

        "*-2" is any to the far end's second uplink: when the first one dies, a box leaves by
        whichever of its own is beyond doubt.
        """

        def is_there() -> bool:
            carriers = self.carriers(name, class_name, site)
            return len(carriers) == len(planes) and all(map(fnmatchcase, carriers, planes))

        return self.lab.wait_until(
            is_there,
            timeout_s,
            f"{class_name} from {name} to {site} goes over {', '.join(planes)}",
        )


def wireguard_peer(machine: Machine, device: str) -> str:
    """The only peer's public key on a device."""
    return machine.run(["wg", "show", device, "peers"]).strip()
