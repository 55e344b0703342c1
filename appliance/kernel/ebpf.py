"""Extended BPF (bpf(2)): programs from object files, their maps, and their place on a device.

A program is held by file descriptors only: it goes with the process that loaded it, as a socket
does, and leaves nothing behind in the kernel, unless something there holds it as well. Needs
CAP_BPF and CAP_NET_ADMIN, and Linux 6.6 for attachments that end with the process (tcx). Every
function raises OSError for what the kernel refuses.
"""

import ctypes
import os
import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

_SYSCALLS = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE = 0, 1, 2, 3
_PROG_LOAD, _OBJECT_INFO, _LINK_CREATE = 5, 15, 28
_SCHED_CLS = 3  # BPF_PROG_TYPE_SCHED_CLS
_TCX_INGRESS = 46  # BPF_TCX_INGRESS
_MAP_FLAGS = {11: 1}  # BPF_MAP_TYPE_LPM_TRIE takes memory as it grows: BPF_F_NO_PREALLOC

_MAP_ATTRIBUTES = struct.Struct("=IIIII")  # type, key size, value size, entries, flags
_ELEMENT_ATTRIBUTES = struct.Struct("=I4xQQQ")  # map, key, value, flags
_PROGRAM_ATTRIBUTES = struct.Struct("=IIQQIIQ")  # type, count, code, licence; log level, size, at
_LINK_ATTRIBUTES = struct.Struct("=IIII")  # program, device, where, flags
_INFO_ATTRIBUTES = struct.Struct("=IIQ")  # program, size and place of what is told
_INFO = struct.Struct("=II")  # how bpf_prog_info begins: type, id
_LOG = 1 << 16
_AMBIENT, _AMBIENT_LOWER, _CAP_BPF = 47, 3, 39  # prctl(2), capabilities(7)

# ELF (elf(5)), 64 bits, little-endian.
_ELF = struct.Struct("<16s24xQ10xHHH")  # identity; section headers: at, size of one, count, names
_SECTION = struct.Struct("<II16xQQII16x")  # name, type; at, size, link, info
_SYMBOL = struct.Struct("<IBBHQQ")  # name, info, other, section, value, size
_RELOCATION = struct.Struct("<QII")  # at, type, symbol
_IDENTITY = b"\x7fELF\x02\x01"
_SYMBOLS, _RELOCATIONS = 2, 9  # SHT_SYMTAB, SHT_REL
_MAP_REFERENCE = 1  # R_BPF_64_64
_MAP_SPEC = struct.Struct("<IIII")  # type, key size, value size, entries
_FROM_MAP = 1 << 4  # BPF_PSEUDO_MAP_FD, as the source register of a 64-bit load


class ObjectError(ValueError):
    """The file is no object of this kind: what is wrong with it, in a sentence."""


class MapSpec(NamedTuple):
    """What a map is made like."""

    kind: int
    key_size: int
    value_size: int
    entries: int


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """One program, the maps that it names, and where it names them."""

    code: bytes
    licence: bytes
    maps: Mapping[str, MapSpec]
    references: tuple[tuple[int, str], ...]  # offsets in the code


def parse_object(octets: bytes, section: str) -> ObjectFile:
    """Read what clang made of a program in a section, with maps in `maps`. Raises ObjectError."""
    try:
        return _parse(octets, section)
    except ObjectError:
        raise
    except (struct.error, LookupError, ValueError, OverflowError, StopIteration) as error:
        msg = f"no BPF object with a section {section}: {error}"
        raise ObjectError(msg) from error


def _parse(octets: bytes, section: str) -> ObjectFile:
    identity, at, size, count, names = _ELF.unpack_from(octets)
    if not identity.startswith(_IDENTITY):
        msg = "no 64-bit little-endian ELF file"
        raise ObjectError(msg)
    headers = [_SECTION.unpack_from(octets, at + size * n) for n in range(count)]

    def content(index: int) -> bytes:
        start, length = headers[index][2:4]
        return octets[start : start + length]

    def name(table: bytes, offset: int) -> str:
        return table[offset : table.index(b"\0", offset)].decode()

    named = {name(content(names), header[0]): n for n, header in enumerate(headers)}
    symbols_at = next(n for n, header in enumerate(headers) if header[1] == _SYMBOLS)
    strings = content(headers[symbols_at][4])
    symbols = [
        (name(strings, found[0]), found[3], found[4])
        for found in _SYMBOL.iter_unpack(content(symbols_at))
    ]
    maps_at = named["maps"]
    specs = content(maps_at)
    references = []
    for header in headers:
        if header[1] == _RELOCATIONS and header[5] == named[section]:
            found = octets[header[2] : header[2] + header[3]]
            for offset, kind, symbol in _RELOCATION.iter_unpack(found):
                if kind != _MAP_REFERENCE or symbols[symbol][1] != maps_at:
                    msg = f"the program refers to {symbols[symbol][0]!r}, which is no map"
                    raise ObjectError(msg)
                references.append((offset, symbols[symbol][0]))
    return ObjectFile(
        content(named[section]),
        content(named["license"]),
        {
            label: MapSpec(*_MAP_SPEC.unpack_from(specs, value))
            for label, place, value in symbols
            if place == maps_at and label
        },
        tuple(references),
    )


class Map:
    """A map in the kernel. Keys and values are octets of the sizes that it was made with."""

    def __init__(self, spec: MapSpec) -> None:
        flags = _MAP_FLAGS.get(spec.kind, 0)
        self._fd = _bpf(_MAP_CREATE, bytearray(_MAP_ATTRIBUTES.pack(*spec, flags)))
        self._key = ctypes.create_string_buffer(spec.key_size)
        self._value = ctypes.create_string_buffer(spec.value_size)
        self._attributes = bytearray(
            _ELEMENT_ATTRIBUTES.pack(
                self._fd, ctypes.addressof(self._key), ctypes.addressof(self._value), 0
            )
        )

    def fileno(self) -> int:
        return self._fd

    def get(self, key: bytes) -> bytes | None:
        """The value under a key; None when there is none."""
        self._key.raw = key
        try:
            _bpf(_MAP_LOOKUP, self._attributes)
        except FileNotFoundError:
            return None
        return self._value.raw

    def set(self, key: bytes, value: bytes) -> None:
        self._key.raw, self._value.raw = key, value
        _bpf(_MAP_UPDATE, self._attributes)

    def delete(self, key: bytes) -> None:
        """Absence is no error."""
        self._key.raw = key
        where = _ELEMENT_ATTRIBUTES.pack(self._fd, ctypes.addressof(self._key), 0, 0)
        try:
            _bpf(_MAP_DELETE, bytearray(where))  # no value: the kernel refuses one
        except FileNotFoundError:
            return

    def close(self) -> None:
        os.close(self._fd)


class Program:
    """A loaded program with its maps, by name."""

    def __init__(self, source: ObjectFile) -> None:
        self.maps: dict[str, Map] = {}
        try:
            for name, spec in source.maps.items():
                self.maps[name] = Map(spec)
            self._fd = _load(source, {name: each.fileno() for name, each in self.maps.items()})
        except OSError:
            self._close_maps()
            raise

    def fileno(self) -> int:
        return self._fd

    @property
    def id(self) -> int:
        """By which the kernel lists this instance of the program."""
        told = ctypes.create_string_buffer(_INFO.size)
        where = _INFO_ATTRIBUTES.pack(self._fd, _INFO.size, ctypes.addressof(told))
        _bpf(_OBJECT_INFO, bytearray(where))
        return int(_INFO.unpack(told.raw)[1])

    def attach(self, ifindex: int) -> int:
        """Have the program see what comes in by a device; the descriptor that keeps it there."""
        return _bpf(
            _LINK_CREATE, bytearray(_LINK_ATTRIBUTES.pack(self._fd, ifindex, _TCX_INGRESS, 0))
        )

    def close(self) -> None:
        """Places where it is attached keep it until their descriptors are closed."""
        os.close(self._fd)
        self._close_maps()

    def _close_maps(self) -> None:
        for each in self.maps.values():
            each.close()


def keep_from_children() -> None:
    """Let no program that we start have CAP_BPF: what it parses comes from outside."""
    _libc.prctl(_AMBIENT, _AMBIENT_LOWER, _CAP_BPF, 0, 0)  # fails where there is none


def _load(source: ObjectFile, descriptors: Mapping[str, int]) -> int:
    code = bytearray(source.code)
    for offset, name in source.references:
        code[offset + 1] |= _FROM_MAP
        struct.pack_into("<i", code, offset + 4, descriptors[name])
    octets = (ctypes.c_char * len(code)).from_buffer(code)
    licence = ctypes.create_string_buffer(source.licence)
    log = ctypes.create_string_buffer(_LOG)
    where = ctypes.addressof(octets), ctypes.addressof(licence)

    def attributes(level: int) -> bytearray:
        told = (level, _LOG, ctypes.addressof(log)) if level else (0, 0, 0)
        return bytearray(_PROGRAM_ATTRIBUTES.pack(_SCHED_CLS, len(code) // 8, *where, *told))

    try:
        return _bpf(_PROG_LOAD, attributes(0))
    except OSError as error:
        if isinstance(error, PermissionError):
            raise
        try:
            return _bpf(_PROG_LOAD, attributes(1))  # once more, for what the verifier says
        except OSError:
            told = log.value.decode(errors="replace").strip().splitlines()
            error.strerror = f"{error.strerror}: {' '.join(told[-3:])[:300]}"
            raise error from None


def _bpf(command: int, attributes: bytearray) -> int:
    """The system call. Its result, which is a descriptor for some commands. Raises OSError."""
    number = _SYSCALLS.get(platform.machine())
    if number is None:
        raise OSError(0, f"no BPF on {platform.machine()}")
    where = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    result: int = _libc.syscall(number, command, where, len(attributes))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
