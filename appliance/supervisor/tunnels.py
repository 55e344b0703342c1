"""Keeps the prober's and the reflector's sockets in step with the planes that exist.

A socket is bound to a device, not to its name: a plane that was deleted and made anew needs new
sockets, and the sessions on it start over.
"""

import logging
import socket
from dataclasses import dataclass

from appliance.config.addressing import mirrored, plane_device, probe_address
from appliance.config.intent import Intent, paths, planes
from appliance.contract.ids import PathId, Plane, SiteId
from appliance.core.steering import DEVICE_MTU
from appliance.probing.paths import Channel, Measured, PathProber
from appliance.probing.reflect import Reflection
from appliance.probing.sockets import open_socket

COURTESY_S = 0.3  # more than a handshake takes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Ends:
    """The sockets of one plane, and what they were opened for."""

    index: int  # of the device
    port: int
    channel: Channel
    reflector: socket.socket


class Tunnels:
    """Opens what is missing, replaces what is stale, closes what is not wanted any more."""

    def __init__(self, prober: PathProber, reflection: Reflection) -> None:
        self._prober = prober
        self._reflection = reflection
        self._ends: dict[Plane, _Ends] = {}

    def follow(self, intent: Intent) -> None:
        """Measure every path of the intent whose plane exists. Cheap when nothing changed."""
        port = intent.probing.port
        ends: dict[Plane, _Ends] = {}
        for plane in planes(intent):
            index = _index_of(plane_device(plane))
            known = self._ends.get(plane)
            if known and known.index == index and known.port == port:
                ends[plane] = known
            elif index is not None and (opened := _open(intent, plane, index)):
                ends[plane] = opened
        numbers = {peer.name: peer.site_id for peer in intent.peers}
        if ends != self._ends:
            self._ends = ends
            self._reflection.serve({plane: each.reflector for plane, each in ends.items()})
        self._prober.measure(
            {plane: each.channel for plane, each in ends.items()},
            {
                path: Measured(
                    (_address(intent, path, numbers[path.site]), port),
                    # WireGuard's first handshake fails when both ends begin it at once, and is
                    # tried again 5 s later only: the lower number goes first.
                    delay_s=0.0 if intent.site_id < numbers[path.site] else COURTESY_S,
                )
                for path in paths(intent)
                if path.plane in ends
            },
        )

    def close(self) -> None:
        self._prober.close()
        self._reflection.close()


def _address(intent: Intent, path: PathId, site_id: SiteId) -> str:
    return str(probe_address(intent.overlay, mirrored(path.plane), site_id))


def _index_of(device: str) -> int | None:
    try:
        return socket.if_nametoindex(device)
    except OSError:
        return None


def _open(intent: Intent, plane: Plane, index: int) -> _Ends | None:
    device = plane_device(plane)
    address = str(probe_address(intent.overlay, plane, intent.site_id))
    port = intent.probing.port
    try:
        sender = open_socket(device, address, 0)
        try:
            reflector = open_socket(device, address, port, wants_headers=True)
        except OSError:
            sender.close()
            raise
    except OSError as error:
        log.warning("plane cannot be probed", extra={"device": device, "error": str(error)})
        return None
    return _Ends(index, port, Channel(plane, sender, DEVICE_MTU), reflector)
