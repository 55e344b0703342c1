"""The reflector in the kernel: what it is told, and what it has counted.

It answers plain STAMP probes where they come in (`reflector.bpf.c`), so that nobody is woken for
them and a supervisor that is busy does not look like a dead path to others. Optional: without
Linux 6.6, CAP_BPF or the built object, the supervisor answers all by itself.
"""

import errno
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from typing import NamedTuple

from appliance.kernel.ebpf import ObjectError, Program, parse_object

OBJECT = Path(__file__).with_name("reflector.bpf.o")  # built by `make bpf`

_SETTINGS = struct.Struct("=QQQQQ2s2s4x")
_SESSION_KEY = struct.Struct("=16s2s2s")  # address, SSID, port
_SESSION = struct.Struct("=II16x")
_TOTALS = struct.Struct("=QQQ8x")
_FIRST = bytes(4)  # the only key of a map with one entry


@dataclass(frozen=True, slots=True)
class Settings:
    """Bounds and numbers of a reflector; times in nanoseconds."""

    epoch_ns: int  # from the monotonic clock to the session clock
    gap_ns: int  # between packets of one session at its full rate
    slack_ns: int  # how far ahead of that rate a burst may run
    total_gap_ns: int  # the same for all sessions together
    total_slack_ns: int
    port: int
    error_estimate: int


class Counted(NamedTuple):
    """Test packets since the start."""

    reflected: int
    malformed: int
    limited: int


class KernelReflector:
    """A loaded reflector, on no plane yet. Raises OSError when the kernel will not have it."""

    def __init__(self, settings: Settings) -> None:
        try:
            self._program = Program(parse_object(OBJECT.read_bytes(), "tcx"))
        except ObjectError as error:
            raise OSError(0, str(error)) from error
        self._places: dict[int, tuple[bytes, int]] = {}  # own address and descriptor, by device
        self._program.maps["settings_of"].set(
            _FIRST,
            _SETTINGS.pack(
                settings.epoch_ns,
                settings.gap_ns,
                settings.slack_ns,
                settings.total_gap_ns,
                settings.total_slack_ns,
                settings.port.to_bytes(2),
                settings.error_estimate.to_bytes(2),
            ),
        )

    def follow(self, ends: Mapping[int, bytes]) -> None:
        """Answer at these ends of planes and nowhere else: our packed address by device index.

        A device that is gone is passed over. Raises OSError when one will not have it.
        """
        addresses = self._program.maps["own_address"]
        for ifindex in self._places.keys() - ends.keys():
            os.close(self._places.pop(ifindex)[1])
            addresses.delete(struct.pack("=I", ifindex))
        for ifindex, address in ends.items():
            have = self._places.get(ifindex)
            if have is None or have[0] != address:
                try:
                    place = self._program.attach(ifindex) if have is None else have[1]
                except OSError as error:
                    if error.errno == errno.ENODEV:
                        continue
                    raise
                self._places[ifindex] = address, place
                addresses.set(struct.pack("=I", ifindex), address)

    def counted(self, source: IPv6Address, port: int, ssid: int) -> tuple[int, int] | None:
        """How many packets came in a session, and the highest sequence number of them."""
        found = self._program.maps["sessions"].get(
            _SESSION_KEY.pack(source.packed, ssid.to_bytes(2), port.to_bytes(2))
        )
        return None if found is None else _SESSION.unpack(found)

    def totals(self) -> Counted:
        found = self._program.maps["totals_of"].get(_FIRST)
        return Counted(0, 0, 0) if found is None else Counted(*_TOTALS.unpack(found))

    def close(self) -> None:
        """Answer nobody any more, and leave nothing in the kernel."""
        for _, place in self._places.values():
            os.close(place)
        self._places.clear()
        self._program.close()
