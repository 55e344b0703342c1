"""Runs inside the freshly made guest root, once: leave only what a boot needs, ready to use.

A boot copies the root file system into memory instruction by instruction, so every megabyte and
every module that has to be decompressed is paid for at each boot.
"""

import compileall
import fnmatch
import lzma
import py_compile
import shutil
import struct
import subprocess
from pathlib import Path

SIGNATURE_MARKER = b"~Module signature appended~\n"
USELESS = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/bash-completion",
    "usr/share/zsh",
    "usr/share/lintian",
    "usr/share/common-licenses",
    "usr/share/perl5",
    "usr/share/gcc",
    "usr/share/initramfs-tools",
    "usr/share/keyrings",
    "usr/share/zoneinfo",
    "usr/lib/udev",
    "usr/lib/klibc",
    "usr/lib/apt",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/perl-base",
    "usr/lib/x86_64-linux-gnu/security",
    "usr/bin/perl*",
    "usr/bin/apt*",
    "usr/bin/sqv",
    "usr/lib/x86_64-linux-gnu/libapt-pkg.so*",
    "usr/local/lib/python3.*/dist-packages/pip*",
    "usr/lib/python3.*/test",
    "usr/lib/python3.*/idlelib",
    "usr/lib/python3.*/pydoc_data",
    "usr/lib/python3.*/ensurepip",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/cache",
    "var/lib/systemd",
    "var/log",
)

# What the lab and the product load, below /usr/lib/modules/VERSION/kernel; dependencies follow.
MODULES = (
    "net/802/*",
    "net/8021q/*",
    "net/bridge/*",
    "net/ipv4/*",
    "net/ipv6/*",
    "net/key/*",
    "net/netfilter/*",
    "net/packet/*",
    "net/sched/*",
    "net/sctp/*",
    "net/unix/*",
    "net/xfrm/*",
    "drivers/net/bonding/*",
    "drivers/net/dummy.ko*",
    "drivers/net/ifb.ko*",
    "drivers/net/ipvlan/*",
    "drivers/net/macvlan.ko*",
    "drivers/net/nlmon.ko*",
    "drivers/net/ppp/*",
    "drivers/net/tun.ko*",
    "drivers/net/veth.ko*",
    "drivers/net/vrf.ko*",
    "drivers/net/vxlan/*",
    "drivers/net/wireguard/*",
)


def remove_useless(root: Path) -> None:
    for pattern in USELESS:
        for path in root.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def wanted_modules(kernel: Path) -> set[str]:
    """Paths of the wanted modules and of everything they depend on, as modules.dep names them."""
    needs: dict[str, list[str]] = {}
    for line in (kernel / "modules.dep").read_text().splitlines():
        module, _, dependencies = line.partition(":")
        needs[module] = dependencies.split()
    patterns = [f"kernel/{pattern}" for pattern in MODULES]
    queue = [m for m in needs if any(fnmatch.fnmatch(m, p) for p in patterns)]
    wanted: set[str] = set()
    while queue:
        module = queue.pop()
        if module not in wanted:
            wanted.add(module)
            queue.extend(needs[module])
    return wanted


def strip_signature(module: bytes) -> bytes:
    """A module ends with signature, 12 octets that end with its length (u32), and a marker."""
    if not module.endswith(SIGNATURE_MARKER):
        return module
    body = module.removesuffix(SIGNATURE_MARKER)
    (length,) = struct.unpack(">I", body[-4:])
    return body[: -12 - length]


def prune_modules(kernel: Path) -> None:
    """Keep the wanted modules, decompressed and without signature.

    Unpacking them and checking Debian's signature costs a 1-GIPS guest 0.1 s a module.
    """
    wanted = wanted_modules(kernel)
    for path in sorted(kernel.rglob("*.ko*")):
        if str(path.relative_to(kernel)) in wanted and path.suffix == ".xz":
            module = strip_signature(lzma.decompress(path.read_bytes()))
            path.with_suffix("").write_bytes(module)
            path.unlink()
        elif str(path.relative_to(kernel)) not in wanted:
            path.unlink()
    subprocess.run(["depmod", kernel.name], check=True)


def compile_python(root: Path) -> None:
    """Byte-compile everything, never checked against its source: an initramfs has no old times."""
    for pattern in ("usr/lib/python3.*", "usr/local/lib/python3.*"):
        for directory in root.glob(pattern):
            compileall.compile_dir(
                directory,
                quiet=2,
                force=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )


def main() -> None:
    root = Path("/")
    for kernel in root.glob("usr/lib/modules/*"):
        prune_modules(kernel)
    compile_python(root)
    remove_useless(root)


if __name__ == "__main__":
    main()
