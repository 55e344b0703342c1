"""The archive is read back by a reader of its own, written from the format's description."""

import io
import stat
import tarfile
from pathlib import Path

from lab.archive import CpioWriter

Entry = tuple[int, bytes]  # mode, content


def read_cpio(archive: bytes) -> dict[str, Entry]:
    """Entries of a "newc" archive (cpio(5)), names in order."""
    entries: dict[str, Entry] = {}
    at = 0
    while True:
        header = archive[at : at + 110]
        assert header[:6] == b"070701"
        fields = [int(header[6 + 8 * n : 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        at += (110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return entries
        assert name not in entries
        entries[name] = mode, archive[at : at + size]
        at += (size + 3) // 4 * 4


def test_files_bring_their_directories_once() -> None:
    stream = io.BytesIO()
    cpio = CpioWriter(stream)
    cpio.add_file("opt/x/one", b"1")
    cpio.add_file("/opt/x/three", b"333", 0o755)
    cpio.close()
    assert read_cpio(stream.getvalue()) == {
        "opt": (stat.S_IFDIR | 0o755, b""),
        "opt/x": (stat.S_IFDIR | 0o755, b""),
        "opt/x/one": (stat.S_IFREG | 0o644, b"1"),
        "opt/x/three": (stat.S_IFREG | 0o755, b"333"),
    }


def test_a_tar_keeps_modes_links_and_devices_and_loses_what_is_not_kept() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, kind, mode in (
            ("./tmp", tarfile.DIRTYPE, 0o1777),
            ("./usr/bin/a", tarfile.REGTYPE, 0o755),
            ("./usr/bin/hard", tarfile.LNKTYPE, 0o755),
            ("./bin", tarfile.SYMTYPE, 0o777),
            ("./dev/null", tarfile.CHRTYPE, 0o666),
            ("./boot/vmlinuz", tarfile.REGTYPE, 0o644),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, mode
            member.linkname = {"./bin": "usr/bin", "./usr/bin/hard": "./usr/bin/a"}.get(name, "")
            member.devmajor, member.devminor = 1, 3
            content = b"program" if name == "./usr/bin/a" else b""
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    packed.seek(0)
    stream = io.BytesIO()
    cpio = CpioWriter(stream)
    with tarfile.open(fileobj=packed) as tar:
        cpio.copy_tar(tar, keep=lambda name: not name.startswith("boot/"))
    cpio.close()
    entries = read_cpio(stream.getvalue())
    assert entries["tmp"] == (stat.S_IFDIR | 0o1777, b"")
    assert entries["usr/bin/a"] == (stat.S_IFREG | 0o755, b"program")
    assert entries["usr/bin/hard"] == (stat.S_IFREG | 0o755, b"program")
    assert entries["bin"] == (stat.S_IFLNK | 0o777, b"usr/bin")
    assert stat.S_ISCHR(entries["dev/null"][0])
    assert "boot/vmlinuz" not in entries
    # rdev follows the device's own numbers in the header: fields 9 and 10
    at = stream.getvalue().index(b"dev/null\0") - 110
    header = stream.getvalue()[at : at + 110]
    assert (int(header[78:86], 16), int(header[86:94], 16)) == (1, 3)


def test_a_tree_takes_what_is_kept(tmp_path: Path) -> None:
    (tmp_path / "pkg/__pycache__").mkdir(parents=True)
    (tmp_path / "pkg/__pycache__/m.pyc").write_bytes(b"x")
    (tmp_path / "pkg/m.py").write_bytes(b"code")
    stream = io.BytesIO()
    cpio = CpioWriter(stream)
    cpio.add_tree(tmp_path / "pkg", "opt/pkg", keep=lambda p: "__pycache__" not in p.parts)
    cpio.close()
    assert list(read_cpio(stream.getvalue())) == ["opt", "opt/pkg", "opt/pkg/m.py"]
