"""Object files as clang makes them: what is read of ours, and that nothing else is believed."""

from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.kernel.ebpf import MapSpec, ObjectError, parse_object
from appliance.kernel.reflector import _SESSION, _SESSION_KEY, _SETTINGS, _TOTALS, OBJECT

HASH, ARRAY, LRU_HASH = 1, 2, 9


@cache
def octets() -> bytes:
    assert OBJECT.exists(), "type: make bpf"
    return OBJECT.read_bytes()


def test_the_maps_are_those_that_their_user_packs_and_unpacks() -> None:
    maps = parse_object(octets(), "tcx").maps
    assert maps["settings_of"] == MapSpec(ARRAY, 4, _SETTINGS.size, 1)
    assert maps["totals_of"] == MapSpec(ARRAY, 4, _TOTALS.size, 1)
    assert maps["own_address"] == MapSpec(HASH, 4, 16, 256)
    assert maps["sessions"] == MapSpec(LRU_HASH, _SESSION_KEY.size, _SESSION.size, 16384)


def test_every_reference_is_a_load_of_64_bits_that_names_a_map() -> None:
    source = parse_object(octets(), "tcx")
    assert {name for _, name in source.references} == source.maps.keys()
    assert all(source.code[offset] == 0x18 for offset, _ in source.references)
    assert len(source.code) % 8 == 0
    assert source.licence == b"Apache-2.0\0"


def test_a_section_that_is_not_there_is_named() -> None:
    with pytest.raises(ObjectError, match="section xdp"):
        parse_object(octets(), "xdp")


def test_another_kind_of_file_is_refused() -> None:
    with pytest.raises(ObjectError, match="ELF"):
        parse_object(b"#!/bin/sh\n" + bytes(100), "tcx")


@example(47, 255)  # the section headers are at the end of all memory
@given(st.integers(0, 1 << 16), st.integers(0, 255))
def test_a_damaged_file_is_read_or_refused_by_its_one_error(place: int, value: int) -> None:
    whole = octets()
    place %= len(whole)
    damaged = bytearray(whole)
    damaged[place] = value
    for each in (bytes(damaged), whole[:place]):
        try:
            parse_object(each, "tcx")
        except ObjectError:
            continue
