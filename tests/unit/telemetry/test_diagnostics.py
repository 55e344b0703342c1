"""The bundle: it holds what helps, and no spelling of any planted key."""

import asyncio
import tarfile
from base64 import b64encode, urlsafe_b64encode
from hashlib import sha256
from pathlib import Path

import pytest

from appliance.core.codec import encode_event
from appliance.core.events import IntentChanged
from appliance.telemetry import diagnostics
from appliance.telemetry.diagnostics import collect, write_bundle
from appliance.telemetry.recording import open_recording
from appliance.telemetry.segments import RECORDER_DIRECTORY
from tests.unit.telemetry.test_recorder import INTENT

EXAMPLE = Path(__file__).parents[3] / "examples" / "branch.yaml"
PRIVATE = sha256(b"private").digest()
PRESHARED = sha256(b"preshared").digest()
STAMP = b"a pass phrase for probes"
PASTED = sha256(b"pasted into a comment").digest()


@pytest.fixture
def box(tmp_path: Path) -> tuple[Path, Path]:
    """A configuration and a state directory with keys in every place where one could be."""
    etc, state = tmp_path / "etc", tmp_path / "state"
    (state / RECORDER_DIRECTORY).mkdir(parents=True)
    etc.mkdir()
    config = etc / "config.yaml"
    config.write_text(EXAMPLE.read_text() + f"# old key: {b64encode(PASTED).decode()}\n")
    (etc / "cloud.psk").write_bytes(b64encode(PRESHARED) + b"\n")
    (etc / "stamp.key").write_bytes(STAMP)
    (state / "wireguard.key").write_bytes(b64encode(PRIVATE) + b"\n")
    about = b'{"run": "a", "wall": 0, "now": 0, "preamble": 0}\n'
    event = encode_event(0.0, IntentChanged(INTENT.intent))
    path = state / RECORDER_DIRECTORY / "events-00000001.jsonl"
    path.write_bytes(about + event + b"\n")
    return config, state


def _bundle(box: tuple[Path, Path], tmp_path: Path, told: dict[str, bytes]) -> Path:
    async def members() -> dict[str, bytes]:
        return {name: octets async for name, octets in collect(*box, told)}

    path = tmp_path / "bundle.tar.gz"
    write_bundle(path, asyncio.run(members()), now=1_750_000_000.0)
    return path


def _unpacked(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as bundle:
        return {
            member.name.removeprefix("bundle/"): file.read()
            for member in bundle
            if (file := bundle.extractfile(member)) is not None
        }


def test_no_planted_key_is_in_the_bundle(
    box: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaks = {  # what a fault could make a program or the supervisor print
        "status.json": b'{"key": "%s"}' % b64encode(PRIVATE),
        "metrics.txt": b"key %s\nprobe key=%s," % (PRIVATE.hex().encode(), STAMP),
        "raw.bin": PRESHARED + b" and " + STAMP,
    }
    monkeypatch.setattr(diagnostics, "LISTINGS", {"leak": ("cat", str(box[1] / "wireguard.key"))})
    members = _unpacked(_bundle(box, tmp_path, leaks))
    assert members["kernel/leak.txt"].startswith(b"$ cat ")
    everything = b"\n".join(members.values())
    for secret in (PRIVATE, PRESHARED, PASTED, STAMP):
        for spelling in (
            secret,
            b64encode(secret),
            b64encode(secret).rstrip(b"="),
            urlsafe_b64encode(secret),
            secret.hex().encode(),
            secret.hex().upper().encode(),
        ):
            assert spelling not in everything


def test_it_holds_what_helps(box: tuple[Path, Path], tmp_path: Path) -> None:
    members = _unpacked(_bundle(box, tmp_path, {"status.json": b'{"site": "branch-a"}'}))
    assert members["status.json"] == b'{"site": "branch-a"}'
    assert b"branch-a" in members["config.yaml"]
    assert members["config-check.txt"].startswith(b"valid: site branch-a")
    assert b"$ ip -d -s link show\n" in members["kernel/links.txt"]
    assert set(members) >= {f"kernel/{name}.txt" for name in diagnostics.LISTINGS}


def test_the_recording_in_it_can_be_decided_again(box: tuple[Path, Path], tmp_path: Path) -> None:
    path = _bundle(box, tmp_path, {})
    with tarfile.open(path) as bundle:
        bundle.extractall(tmp_path / "there", filter="data")
    lines = list(open_recording(tmp_path / "there" / "bundle" / RECORDER_DIRECTORY).lines())
    assert len(lines) == 1
    assert b"IntentChanged" in lines[0]


def test_a_box_that_is_broken_gets_a_bundle_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings = {"none": ("no-such-program-here",), "fails": ("sh", "-c", "echo why >&2; exit 3")}
    monkeypatch.setattr(diagnostics, "LISTINGS", listings)
    config = tmp_path / "none" / "config.yaml"
    members = _unpacked(_bundle((config, tmp_path / "gone"), tmp_path, {}))
    assert b"cannot be read" in members["config.yaml"]
    assert b"cannot be read" in members["config-check.txt"]
    assert b"No such file or directory" in members["kernel/none.txt"]
    assert members["kernel/fails.txt"].endswith(b"why\n")


def test_it_is_for_its_owner_only_and_replaces_nothing(
    box: tuple[Path, Path], tmp_path: Path
) -> None:
    path = _bundle(box, tmp_path, {})
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        write_bundle(path, {}, now=0.0)
