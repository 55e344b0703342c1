"""One file with what helps to find a fault, safe to hand to somebody else.

It reads and never changes anything. What cannot be had is told in its place: a bundle is most
needed when something is broken. Every member passes the redactor: no key is in it.
"""

import gzip
import io
import json
import os
import platform
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from appliance import __version__
from appliance.config.errors import ConfigError
from appliance.config.load import load_config
from appliance.kernel.process import ProcessError, run
from appliance.telemetry.redact import Redactor, secrets_of
from appliance.telemetry.segments import RECORDER_DIRECTORY, files

MEMBER_OCTETS = 8 << 20  # of a longer one the end is kept: the newest is there
RECORDED_OCTETS = 8 << 20

# `wg show` without `dump`: it hides private keys by itself, and so does the redactor after it.
LISTINGS: Final[Mapping[str, Sequence[str]]] = {
    "links": ("ip", "-d", "-s", "link", "show"),
    "addresses": ("ip", "-d", "address", "show"),
    "routes-4": ("ip", "-4", "-d", "route", "show", "table", "all"),
    "routes-6": ("ip", "-6", "-d", "route", "show", "table", "all"),
    "nexthops": ("ip", "-d", "nexthop", "show"),
    "rules-4": ("ip", "-4", "-d", "rule", "show"),
    "rules-6": ("ip", "-6", "-d", "rule", "show"),
    "neighbours": ("ip", "neighbour", "show"),
    "wireguard": ("wg", "show", "all"),
    "nftables": ("nft", "list", "ruleset"),
    "queues": ("tc", "-s", "qdisc", "show"),
    "sysctls": ("sysctl", "net.ipv4.ip_forward", "net.ipv4.conf", "net.ipv6.conf"),
    "modules": ("lsmod",),
    "sockets": ("ss", "-uanp"),
    "log": ("journalctl", "--unit=branchline", "--lines=2000", "--no-pager", "--output=short-iso"),
}


async def collect(
    config: Path, state_dir: Path, told: Mapping[str, bytes]
) -> AsyncIterator[tuple[str, bytes]]:
    """Every member of a bundle by name, redacted. `told` is what the supervisor answered."""
    redactor = Redactor(secrets_of(config, state_dir))
    async for name, octets in _members(config, state_dir, told):
        yield name, redactor.redact(octets)


def write_bundle(path: Path, members: Mapping[str, bytes], now: float) -> None:
    """Make the file, for its owner only. Raises OSError, also when it is already there."""
    folder = path.name.removesuffix(".gz").removesuffix(".tar")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with (
        open(descriptor, "wb") as file,  # noqa: PTH123 - made with its mode above
        gzip.GzipFile(fileobj=file, mode="wb", mtime=now) as packed,
        tarfile.open(fileobj=packed, mode="w") as bundle,
    ):
        for name, octets in members.items():
            about = tarfile.TarInfo(f"{folder}/{name}")
            about.size, about.mtime, about.mode = len(octets), int(now), 0o600
            bundle.addfile(about, io.BytesIO(octets))


async def _members(
    config: Path, state_dir: Path, told: Mapping[str, bytes]
) -> AsyncIterator[tuple[str, bytes]]:
    yield "about.json", _about()
    yield "config.yaml", _text_of(config)
    yield "config-check.txt", _checked(config)
    for name, octets in told.items():
        yield name, octets[-MEMBER_OCTETS:]
    for name, argv in LISTINGS.items():
        yield f"kernel/{name}.txt", await _listing(argv)
    for name, octets in _recorded(state_dir):
        yield name, octets


def _about() -> bytes:
    system = os.uname()
    about = {
        "branchline": __version__,
        "python": platform.python_version(),
        "kernel": f"{system.sysname} {system.release} {system.machine}",
        "uptime": _text_of(Path("/proc/uptime")).decode(errors="replace").strip(),
    }
    return json.dumps(about, indent=2).encode() + b"\n"


def _text_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MEMBER_OCTETS)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}\n".encode()


def _checked(config: Path) -> bytes:
    try:
        intent = load_config(config)
    except ConfigError as error:
        return f"{error}\n".encode()
    return f"valid: site {intent.site} ({intent.site_id})\n".encode()


async def _listing(argv: Sequence[str]) -> bytes:
    head = f"$ {' '.join(argv)}\n".encode()
    try:
        done = await run(argv)
    except ProcessError as error:
        return head + f"{error}\n".encode()
    return head + done.stdout[-MEMBER_OCTETS:] + done.stderr


def _recorded(state_dir: Path) -> Sequence[tuple[str, bytes]]:
    """The newest files of events, as many as fit, for `branchline replay`."""
    room = RECORDED_OCTETS
    found = []
    for path in reversed(files(state_dir / RECORDER_DIRECTORY, "events")):
        octets = _text_of(path)
        room -= len(octets)
        if room < 0:
            break
        found.append((f"{RECORDER_DIRECTORY}/{path.name}", octets))
    return found
