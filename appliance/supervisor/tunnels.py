"""Keeps the prober and the reflector in step with the planes that exist.

A plane that was deleted and made anew has another index, and the sessions on it start over.
"""

import asyncio
import socket
from collections.abc import Callable
from ipaddress import IPv6Address

from appliance.config.addressing import mirrored, plane_device, probe_address
from appliance.config.intent import Intent, paths, planes
from appliance.contract.ids import PathId, Plane, SiteId
from appliance.core.steering import DEVICE_MTU
from appliance.probing.paths import Measured, PathProber
from appliance.probing.reflect import Reflection
from appliance.probing.sockets import ProbeSocket, endpoint, pktinfo

RETRY_S = 2.0  # a port that is taken is tried again so soon


class Tunnels:
    """Says what is to be measured, and where probes are to be answered."""

    def __init__(
        self, prober: PathProber, reflection: Reflection, tell: Callable[[str | None], None]
    ) -> None:
        """`tell` takes why nobody's probes are answered, and None when they are."""
        self._prober = prober
        self._reflection = reflection
        self._tell = tell
        self._retry: asyncio.TimerHandle | None = None
        self._followed: tuple[Intent, dict[Plane, bytes]] | None = None

    def follow(self, intent: Intent) -> None:
        """Measure every path of the intent whose plane exists. Cheap when nothing changed."""
        ends = {}
        for plane in planes(intent):
            index = _index_of(plane_device(plane))
            if index is not None:
                ends[plane] = pktinfo(_own_address(intent, plane), index)
        if self._followed == (intent, ends):
            return
        self._followed = (intent, ends)
        port = intent.probing.port
        self._listen(port)
        self._reflection.follow(ends.values())
        numbers = {peer.name: peer.site_id for peer in intent.peers}
        lines = {uplink.slot: uplink.device for uplink in intent.uplinks}
        self._prober.measure(
            {
                path: Measured(
                    ends[path.plane],
                    endpoint(_far_address(intent, path, numbers[path.site]), port),
                    DEVICE_MTU,
                    lines[path.plane.local],
                    is_second=intent.site_id > numbers[path.site],
                )
                for path in paths(intent)
                if path.plane in ends
            }
        )

    def use_key(self, key: bytes | None) -> None:
        """Probes have another key from now on. The next `follow` opens their sessions."""
        self._prober.use_key(key)
        self._reflection.use_key(key)
        self._followed = None

    def close(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._prober.close()
        self._reflection.close()

    def _listen(self, port: int) -> None:
        """Answer at this port, now or as soon as it can be had."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        try:
            if self._reflection.port != port:
                self._reflection.serve(ProbeSocket(port))
        except OSError as error:
            self._tell(f"UDP port {port} cannot be had: {error.strerror}")
            self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._listen, port)
        else:
            self._tell(None)


def _own_address(intent: Intent, plane: Plane) -> IPv6Address:
    return probe_address(intent.overlay, plane, intent.site_id)


def _far_address(intent: Intent, path: PathId, site_id: SiteId) -> IPv6Address:
    return probe_address(intent.overlay, mirrored(path.plane), site_id)


def _index_of(device: str) -> int | None:
    try:
        return socket.if_nametoindex(device)
    except OSError:
        return None
