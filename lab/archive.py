"""Write cpio archives ("newc"), the format in which the kernel takes its root file system.

Written here rather than by the `cpio` program because ownership and modes then need no root
rights, and because the big archive is streamed straight out of a tar file.
"""

import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

_ALIGN = 4
_TRAILER = "TRAILER!!!"


class CpioWriter:
    """Appends entries to a binary stream. Several archives may follow each other in one file."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._inode = 0
        self._directories: set[str] = {""}

    def add(self, name: str, mode: int, content: bytes = b"", *, device: int = 0) -> None:
        """One entry. `mode` includes the file type; `device` is os.makedev() of a device node."""
        self._inode += 1
        encoded = name.encode() + b"\0"
        major, minor = os.major(device), os.minor(device)
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = (self._inode, mode, 0, 0, links, 0, len(content), 0, 0, major, minor)
        header = b"070701" + b"".join(b"%08X" % field for field in (*fields, len(encoded), 0))
        self._padded(header + encoded)
        self._padded(content)

    def add_directory(self, name: str, mode: int = 0o755) -> None:
        """A directory and, where not yet there, its parents."""
        name = name.strip("/")
        if name in self._directories:
            return
        self.add_directory(str(Path(name).parent).removeprefix("."))
        self._directories.add(name)
        self.add(name, stat.S_IFDIR | mode)

    def add_file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """A regular file and, where not yet there, its parent directories."""
        name = name.strip("/")
        self.add_directory(str(Path(name).parent).removeprefix("."))
        self.add(name, stat.S_IFREG | mode, content)

    def add_tree(self, source: Path, target: str, keep: Callable[[Path], bool]) -> None:
        """The files under `source` for which `keep(path)` holds, placed under `target`."""
        for path in sorted(source.rglob("*")):
            if path.is_file() and keep(path):
                mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                self.add_file(f"{target}/{path.relative_to(source)}", path.read_bytes(), mode)

    def copy_tar(self, tar: tarfile.TarFile, keep: Callable[[str], bool]) -> None:
        """The members whose path (without a leading "./") is kept. Hard links become copies."""
        for member in tar:
            name = member.name.removeprefix("./").strip("/")
            if name in {"", "."} or not keep(name):
                continue
            self.add_directory(str(Path(name).parent).removeprefix("."))
            if member.isdir():
                self.add_directory(name, member.mode)
            elif member.issym():
                self.add(name, stat.S_IFLNK | 0o777, member.linkname.encode())
            elif member.ischr():
                device = os.makedev(member.devmajor, member.devminor)
                self.add(name, stat.S_IFCHR | member.mode, device=device)
            elif (source := tar.extractfile(member)) is not None:
                self.add(name, stat.S_IFREG | member.mode, source.read())

    def close(self) -> None:
        """End this archive; the stream stays open."""
        self.add(_TRAILER, 0)

    def _padded(self, content: bytes) -> None:
        self._stream.write(content)
        self._stream.write(b"\0" * (-len(content) % _ALIGN))
