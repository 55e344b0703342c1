"""What the reflector in the kernel is told, on maps in memory.

What it does is seen in tests/lab/lab_reflector.py.
"""

import errno
import os
import struct
from ipaddress import IPv6Address

import pytest

from appliance.kernel import reflector
from appliance.kernel.reflector import Counted, KernelReflector, Settings

SETTINGS = Settings(7, 2_000_000, 498_000_000, 50_000, 249_950_000, 862, 0x4001)
ONE, TWO = IPv6Address("fd00::1").packed, IPv6Address("fd00::2").packed


class Map(dict):
    def set(self, key, value) -> None:
        self[key] = value

    def delete(self, key) -> None:
        self.pop(key, None)


class Program:
    """Places are descriptors of a pipe, so that closing one can be seen."""

    def __init__(self, source) -> None:
        self.maps = {name: Map() for name in source.maps}
        self.places: dict[int, int] = {}
        self.is_closed = False

    def attach(self, ifindex: int) -> int:
        if ifindex >= 98:
            raise OSError(errno.ENODEV if ifindex == 98 else errno.EINVAL, "no such thing")
        self.places[ifindex], write = os.pipe()
        os.close(write)
        return self.places[ifindex]

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def loaded(monkeypatch) -> KernelReflector:
    monkeypatch.setattr(reflector, "Program", Program)
    return KernelReflector(SETTINGS)


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_it_is_told_its_bounds_and_its_port_in_network_order(loaded) -> None:
    octets = loaded._program.maps["settings_of"][bytes(4)]
    assert octets[:40] == struct.pack("=5Q", 7, 2_000_000, 498_000_000, 50_000, 249_950_000)
    assert octets[40:] == bytes.fromhex("035e400100000000")


def test_it_follows_the_planes_that_there_are(loaded) -> None:
    addresses, places = loaded._program.maps["own_address"], loaded._program.places
    loaded.follow({5: ONE, 6: TWO})
    first = places[5]
    assert addresses == {struct.pack("=I", 5): ONE, struct.pack("=I", 6): TWO}
    loaded.follow({5: TWO})
    assert addresses == {struct.pack("=I", 5): TWO}
    assert places[5] == first  # it stays where it is
    assert not is_open(places[6])
    loaded.close()
    assert not is_open(first)
    assert loaded._program.is_closed


def test_a_device_that_is_gone_is_passed_over(loaded) -> None:
    loaded.follow({98: ONE, 6: TWO})
    assert loaded._program.maps["own_address"] == {struct.pack("=I", 6): TWO}


def test_a_device_that_will_not_have_it_is_told_and_leaves_nothing_behind(loaded) -> None:
    with pytest.raises(OSError, match="no such thing"):
        loaded.follow({5: ONE, 99: TWO})
    loaded.close()
    assert not is_open(loaded._program.places[5])


def test_it_tells_what_was_counted(loaded) -> None:
    maps = loaded._program.maps
    sender = IPv6Address("fd00::1")
    assert loaded.counted(sender, 4000, 17) is None
    maps["sessions"][ONE + b"\0\x11\x0f\xa0"] = struct.pack("=IIIIQ", 12, 34, 0, 0, 0)
    assert loaded.counted(sender, 4000, 17) == (12, 34)
    assert loaded.counted(sender, 4001, 17) is None
    assert loaded.totals() == Counted(0, 0, 0)
    maps["totals_of"][bytes(4)] = struct.pack("=4Q", 5, 6, 7, 0)
    assert loaded.totals() == Counted(5, 6, 7)


@pytest.mark.parametrize("octets", [None, b"nonsense"])
def test_without_a_good_object_it_cannot_be_had(monkeypatch, tmp_path, octets) -> None:
    place = tmp_path / "reflector.bpf.o"
    if octets is not None:
        place.write_bytes(octets)
    monkeypatch.setattr(reflector, "OBJECT", place)
    with pytest.raises(OSError, match=r"reflector|object"):
        KernelReflector(SETTINGS)
