"""A file is there completely or not at all, whatever the disk does."""

import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.kernel.files import write_whole


@pytest.fixture
def small_disk() -> Iterator[int]:
    """No file may be larger than so many octets: like a disk that is full after them."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield 1000
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_file_that_does_not_fit_leaves_the_one_before(tmp_path: Path, small_disk: int) -> None:
    path = tmp_path / "last-good.yaml"
    write_whole(path, b"a" * small_disk)
    with pytest.raises(OSError, match="too large"):
        write_whole(path, b"b" * 5 * small_disk)
    assert path.read_bytes() == b"a" * small_disk
    assert path.stat().st_mode & 0o777 == 0o600
