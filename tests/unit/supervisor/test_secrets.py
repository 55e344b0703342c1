"""Which folder each key lies in: what is published of the configuration says what the box does."""

from base64 import b64encode
from pathlib import Path

from pydantic import BaseModel

from appliance.config.schema import Peer, Probing, Wireguard
from appliance.supervisor.run import load
from tests.unit.supervisor.living import write


def key_file(path: Path, octet: int) -> None:
    path.write_bytes(b64encode(bytes([octet]) * 32))
    path.chmod(0o600)


def folders(tmp_path: Path) -> tuple[Path, Path]:
    config, state = tmp_path / "etc", tmp_path / "state"
    config.mkdir()
    state.mkdir()
    return config, state


def said(section: type[BaseModel], key: str) -> str:
    return section.model_fields[key].description or ""


def test_the_private_key_lies_in_the_state_directory_where_the_box_may_write(
    tmp_path: Path,
) -> None:
    config, state = folders(tmp_path)
    file = write(config, more="wireguard: {private_key_file: own.key}\n")
    load(file, state)
    assert [path.name for path in state.iterdir()] == ["own.key"]
    assert [path.name for path in config.iterdir()] == [file.name]
    assert "state directory" in said(Wireguard, "private_key_file")


def test_keys_that_sites_share_lie_beside_the_configuration(tmp_path: Path) -> None:
    config, state = folders(tmp_path)
    file = write(config)
    text = file.read_text().replace("{port:", "{key_file: stamp.key, port:")
    file.write_text(text.replace("    prefixes:", "    preshared_key_file: b.psk\n    prefixes:"))
    key_file(config / "b.psk", 1)
    key_file(config / "stamp.key", 2)
    settings = load(file, state).settings
    assert list(settings.keys.preshared.values()) == [bytes([1]) * 32]
    assert settings.probe_key == bytes([2]) * 32
    assert "beside this" in said(Peer, "preshared_key_file")
    assert "beside this" in said(Probing, "key_file")
