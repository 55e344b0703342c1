"""Build and cache the guest: a Debian kernel and a root file system that lives in memory.

The result is keyed by a hash of everything that goes in, so it is rebuilt when the package list,
the locked wheels or this builder change and at no other time. The project's own files are not
part of it: they are appended at every boot (lab/boot.py).
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab import mirror
from lab.archive import CpioWriter

REPOSITORY = Path(__file__).resolve().parent.parent
CACHE = REPOSITORY / "build" / "lab"

SUITE = "trixie"
PYTHON = "3.13"  # the Python of that suite
PACKAGES = (
    "bird2",
    "bpftool",
    "busybox",
    "conntrack",
    "dhcpcd-base",
    "dnsmasq-base",
    "ethtool",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "kmod",
    "linux-image-cloud-amd64",
    "nftables",
    "openssl",
    "procps",
    "python3",
    "systemd",
    "tcpdump",
    "wireguard-tools",
)
INIT = """#!/bin/sh
# The guest's first process: mount, load modules, run the stories, power off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LANG=C.UTF-8 HOME=/root PYTHONHASHSEED=0
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /run /tmp
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
hostname lab
# `lo` first: the very first IPv4 route of a boot by nexthop id makes kernel 6.12 oops otherwise
ip link set lo up
modprobe -a veth ifb wireguard sch_netem sch_cake
stty -F /dev/ttyS1 raw -echo
python3 -m lab.guest
echo "lab: runner ended with $?"
busybox poweroff -f
"""
_SITE_PACKAGES = f"usr/local/lib/python{PYTHON}/dist-packages"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class ImageError(Exception):
    """The guest could not be built. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Image:
    kernel: Path  # an ELF vmlinux, started by QEMU through its PVH entry
    root: Path  # uncompressed cpio


def image_key() -> str:
    """A hash of the inputs: packages, locked wheels, builder."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for part in (*PACKAGES, SUITE, PYTHON):
        digest.update(part.encode() + b"\0")
    inputs = [here / name for name in ("image.py", "prune.py", "archive.py")]
    for path in (REPOSITORY / "requirements" / "lab.lock", *inputs):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def ensure_image() -> Image:
    """The guest for this checkout, built now if it is not there. Raises ImageError."""
    directory = CACHE / f"image-{image_key()}"
    image = Image(directory / "vmlinux", directory / "root.cpio")
    if directory.is_dir():
        return image
    CACHE.mkdir(parents=True, exist_ok=True)
    with _exclusively(CACHE / "image.lock"):
        if not directory.is_dir():
            _build(directory)
    return image


def _build(directory: Path) -> None:
    progress = _Progress(f"building the guest image ({SUITE}, about a minute)")
    for program in ("mmdebstrap", "zstd"):
        if shutil.which(program) is None:
            message = f"{program} is not installed; run `make setup`"
            raise ImageError(message)
    for old in CACHE.glob("image-*"):
        shutil.rmtree(old)
    with tempfile.TemporaryDirectory(prefix="image-", dir=_scratch()) as scratch:
        work = Path(scratch)
        work.chmod(0o755)  # mmdebstrap drops its rights while downloading
        wheels = work / "wheels"
        progress.step("fetching the locked wheels")
        _fetch_wheels(wheels)
        progress.step("installing Debian packages")
        _run_mmdebstrap(work / "root.tar", wheels, progress)
        progress.step("packing")
        result = work / "result"
        result.mkdir()
        with tarfile.open(work / "root.tar") as tar:
            (result / "vmlinux").write_bytes(_extract_kernel(tar))
        _pack(work / "root.tar", result / "root.cpio")
        shutil.copytree(result, partial := directory.with_suffix(".partial"), dirs_exist_ok=True)
        partial.rename(directory)
    size = (directory / "root.cpio").stat().st_size >> 20
    progress.step(f"done, {size} MiB")


def _fetch_wheels(target: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-compile", "--target", str(target), "--python-version", PYTHON]
    command += ["--implementation", "cp", "--only-binary=:all:", "--require-hashes"]
    command += ["-r", str(REPOSITORY / "requirements" / "lab.lock")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"pip could not fetch the wheels of requirements/lab.lock:\n{done.stderr}"
        raise ImageError(message)


def _run_mmdebstrap(target: Path, wheels: Path, progress: "_Progress") -> None:
    command = ["mmdebstrap", "--variant=minbase", "--keyring=/usr/share/keyrings"]
    command += [f"--include={','.join(PACKAGES)}"]
    command += [
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
    ]
    command += ["--dpkgopt=path-exclude=/usr/share/locale/*"]
    command += [f'--customize-hook=mkdir -p "$1/{_SITE_PACKAGES}"']
    command += [f"--customize-hook=sync-in {wheels} /{_SITE_PACKAGES}"]
    command += [f"--customize-hook=upload {Path(__file__).with_name('prune.py')} /prune.py"]
    # the kernel leaves first: pruning is for what stays in the root
    command += [
        '--customize-hook=chroot "$1" python3 /prune.py',
        '--customize-hook=rm "$1/prune.py"',
    ]
    command += [SUITE, str(target), mirror.find_mirror()]
    tail: list[str] = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stderr is not None
        for line in process.stderr:
            tail = [*tail[-30:], line.rstrip()]
            if line.startswith("I: ") and line.rstrip().endswith("..."):
                progress.step(line[3:].strip())
    if process.returncode:
        message = "mmdebstrap failed:\n" + "\n".join(tail)
        if os.getuid() != 0:
            message += "\nWithout root it needs user namespaces (package uidmap, /etc/subuid)."
        raise ImageError(message)


def _extract_kernel(tar: tarfile.TarFile) -> bytes:
    """The ELF kernel inside Debian's vmlinuz, unpacked here once and not at each boot."""
    for member in tar:
        if "boot/vmlinuz-" in member.name and (source := tar.extractfile(member)) is not None:
            packed = source.read()
            start = packed.index(_ZSTD_MAGIC)
            # zstd complains about what follows the compressed part; the output is whole
            done = subprocess.run(
                ["zstd", "-dc"], input=packed[start:], capture_output=True, check=False
            )
            if done.stdout.startswith(b"\x7fELF"):
                return done.stdout
    message = "no kernel that QEMU can start in the installed linux-image package"
    raise ImageError(message)


def _pack(root: Path, target: Path) -> None:
    with target.open("wb") as stream, tarfile.open(root) as tar:
        cpio = CpioWriter(stream)
        cpio.copy_tar(tar, keep=lambda name: not name.startswith(("boot/", "dev/")))
        cpio.add_file("init", INIT.encode(), 0o755)
        cpio.add_file(f"{_SITE_PACKAGES}/branchline.pth", b"/opt/branchline\n")
        cpio.close()


def _scratch() -> Path:
    """Where to build: mmdebstrap's helpers may not be allowed to read the checkout."""
    return Path(tempfile.gettempdir())


@contextmanager
def _exclusively(path: Path) -> Iterator[None]:
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class _Progress:
    """One line per step with the seconds since the start."""

    def __init__(self, title: str) -> None:
        self._start = time.monotonic()
        print(f"lab: {title}", flush=True)

    def step(self, text: str) -> None:
        print(f"lab: {time.monotonic() - self._start:5.1f} s  {text}", flush=True)
