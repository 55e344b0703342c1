"""A file is there completely or not at all, whatever the disk does."""

import subprocess
import sys
from pathlib import Path

ROOM = 1000
# No file of this process may be larger: like a disk that is full after so many octets.
WRITER = f"""
import resource, signal, sys
from pathlib import Path
from appliance.kernel.files import write_whole
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({ROOM}, {ROOM}))
write_whole(Path(sys.argv[1]), b"b" * int(sys.argv[2]))
"""


def test_a_file_that_does_not_fit_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "last-good.yaml"

    def write(octets: int) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", WRITER, str(path), str(octets)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    path.write_bytes(b"a" * ROOM)
    assert "File too large" in write(5 * ROOM).stderr
    assert path.read_bytes() == b"a" * ROOM
    assert write(ROOM).returncode == 0
    assert path.read_bytes() == b"b" * ROOM
    assert path.stat().st_mode & 0o777 == 0o600
