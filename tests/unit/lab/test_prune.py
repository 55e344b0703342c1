import struct
from pathlib import Path

from lab.prune import SIGNATURE_MARKER, strip_signature, wanted_modules


def test_a_signature_is_taken_off_a_module_and_nothing_else() -> None:
    signature = b"s" * 300
    signed = b"\x7fELF module" + signature + struct.pack(">8xI", 300) + SIGNATURE_MARKER
    assert strip_signature(signed) == b"\x7fELF module"
    assert strip_signature(b"\x7fELF module") == b"\x7fELF module"


def test_wanted_modules_bring_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text(
        "kernel/drivers/net/wireguard/wireguard.ko.xz: kernel/lib/curve.ko.xz\n"
        "kernel/lib/curve.ko.xz: kernel/crypto/base.ko.xz\n"
        "kernel/crypto/base.ko.xz:\n"
        "kernel/fs/btrfs/btrfs.ko.xz: kernel/crypto/base.ko.xz\n"
    )
    assert wanted_modules(tmp_path) == {
        "kernel/drivers/net/wireguard/wireguard.ko.xz",
        "kernel/lib/curve.ko.xz",
        "kernel/crypto/base.ko.xz",
    }
