"""Which folder each key lies in: what is published of the configuration says what the box does.

And how a reload brings other keys into use.
"""

import asyncio
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from appliance.config.schema import Peer, Probing, Wireguard
from appliance.kernel.keys import Keys
from appliance.plan.plan import Kind, Op, WireguardPeer
from appliance.supervisor.run import load
from tests.unit.supervisor.living import StubbornKernel, life, running, until, write


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


class KeyedKernel(StubbornKernel):
    """Takes its time between two operations, and needs the keys that they name: as the real one."""

    def __init__(self) -> None:
        super().__init__()
        self.held: asyncio.Event | None = None
        self.keys = Keys("", {}, b"", {})

    def use_keys(self, keys: Keys) -> None:
        self.keys = keys

    async def apply(self, ops: Sequence[Op]) -> None:
        for op in ops:
            if self.held is not None:
                await self.held.wait()
            if isinstance(op.item, WireguardPeer) and op.item.preshared is not None:
                assert op.item.preshared in self.keys.preshared
            self._apply(op)


async def test_a_reload_with_other_keys_waits_for_the_plan_that_is_being_applied(
    tmp_path: Path,
) -> None:
    path = write(tmp_path)
    shared = "    preshared_key_file: b.psk\n    prefixes:"
    path.write_text(path.read_text().replace("    prefixes:", shared))
    key_file(tmp_path / "b.psk", 1)
    kernel = KeyedKernel()
    lived = life(tmp_path, kernel)
    kernel.keys = lived._box.settings.keys
    async with running(lived) as task:
        peer = next(key for key in kernel.owned if key.kind is Kind.PEER)
        kernel.held = asyncio.Event()
        kernel.remove(peer)
        lived._box.wake()
        before = lived._box.settings
        await until(lambda: bool(kernel.held and kernel.held._waiters))  # type: ignore[attr-defined]
        key_file(tmp_path / "b.psk", 2)
        reloading = asyncio.create_task(lived.reload())
        await until(lambda: lived._box.settings is not before)
        kernel.held.set()
        await reloading
        (digest,) = lived._box.settings.keys.preshared
        assert digest not in before.keys.preshared
        item = kernel.owned[peer]
        assert isinstance(item, WireguardPeer)
        assert item.preshared == digest
        assert not task.done()
