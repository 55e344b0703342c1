"""Warns of leases whose networks lie in a LAN or behind another site.

The configuration is checked for that (`appliance.config.networks`), but what a provider gives is
only known when it is there. The lease is used all the same: it may be the only way out, and tunnels
go by the uplink's own routing table, where nothing from inside is in their way.
"""

from collections.abc import Iterator, Mapping

from appliance.config.intent import Intent, Interface, Method, Network
from appliance.supervisor.warnings import Warnings


class Overlaps:
    """One warning for each uplink whose lease overlaps; it ends with the lease or the overlap."""

    def __init__(self, warnings: Warnings) -> None:
        self._warnings = warnings
        self._intent: Intent | None = None
        self._leased: dict[str, tuple[Interface, ...]] = {}

    def follow(self, intent: Intent, addresses: Mapping[str, tuple[Interface, ...]]) -> None:
        """`addresses` are all that there are, by device. What is known already costs nothing."""
        leased = {
            uplink.device: addresses.get(uplink.device, ())
            for uplink in intent.uplinks
            if uplink.method is Method.DHCP
        }
        if intent is self._intent and leased == self._leased:
            return
        for device in self._leased.keys() - leased.keys():
            self._warnings.warn("lease-overlaps", device, "warning", None)
        for device, own in leased.items():
            text = next(_overlaps(intent, device, own), None)
            self._warnings.warn("lease-overlaps", device, "warning", text)
        self._intent, self._leased = intent, leased


def _overlaps(intent: Intent, device: str, own: tuple[Interface, ...]) -> Iterator[str]:
    for where, network in _inside(intent):
        for interface in own:
            if interface.network.overlaps(network):
                yield (
                    f"{interface} was leased on {device}, which overlaps {network} of {where}: "
                    "addresses that lie in both may not be reached"
                )


def _inside(intent: Intent) -> Iterator[tuple[str, Network]]:
    for lan in intent.lans:
        for interface in lan.addresses:
            yield f"the LAN {lan.name}", interface.network
    for peer in intent.peers:
        for prefix in peer.prefixes:
            yield f"the site {peer.name}", prefix
