"""A supervisor's whole life on a kernel in memory: a box with one uplink, dead, and one peer."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path

from appliance.contract.status import WarningStatus
from appliance.kernel.fake import FakeKernel
from appliance.kernel.kernel import KernelError
from appliance.plan.plan import Key, Observed, Op
from appliance.plan.text import render_op
from appliance.services.dhcp import make_leases_directory
from appliance.supervisor.run import Life, load

TUNNEL_PORTS = range(51820, 51820 + 256)  # the default
CONFIG = """\
version: 1
site: {{name: a, id: 1}}
fleet: {{overlay: "fd12:3456:789a::/48"}}
uplinks:
  - {{name: fibre, device: nowhere0, address: 203.0.113.18/28, gateway: 203.0.113.17}}
peers:
  - name: b
    id: 2
    public_key: SFFIUUhRSFFIUUhRSFFIUUhRSFFIUUhRSFFIUUhRSFE=
    uplinks: [{{label: cable, endpoint: 198.51.100.1}}]
    prefixes: ["{prefix}"]
probing: {{port: {port}{key}}}
"""


class StubbornKernel(FakeKernel):
    """Refuses operations on the named things, or everything, or to be looked at."""

    def __init__(self) -> None:
        super().__init__(devices=("lo", "nowhere0"))
        self.refused: tuple[str, ...] = ()  # parts of an operation's command; "" is in all
        self.is_blind = False

    async def observe(self, wanted: Collection[Key]) -> Observed:
        await asyncio.sleep(0)  # others run meanwhile, as with the real one
        if self.is_blind:
            raise KernelError(None, errno.ENOBUFS)
        return await super().observe(wanted)

    def _apply(self, op: Op) -> None:
        if any(part in render_op(op) for part in self.refused):
            raise KernelError(op, errno.EPERM)
        super()._apply(op)


def free_port() -> int:
    """A UDP port that nobody has, and that no tunnel of the configuration would take."""
    while True:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as found:
            found.bind(("::", 0))
            port: int = found.getsockname()[1]
        if port not in TUNNEL_PORTS:
            return port


def write(
    folder: Path, prefix: str = "192.0.2.0/24", more: str = "", key_file: str | None = None
) -> Path:
    path = folder / "a.yaml"
    key = "" if key_file is None else f", key_file: {key_file}"
    path.write_text(CONFIG.format(prefix=prefix, port=free_port(), key=key) + more)
    return path


def life(folder: Path, kernel: FakeKernel) -> Life:
    """Made, not started. The configuration has been written."""
    config, state, run = folder / "a.yaml", folder / "state", folder / "run"
    for directory in (state, run):
        directory.mkdir(exist_ok=True)
    make_leases_directory(run)
    return Life(config, state, run, load(config, state), kernel)


@contextlib.asynccontextmanager
async def running(lived: Life) -> AsyncIterator[asyncio.Task[None]]:
    """It runs, and its first plan is in force."""
    task = asyncio.create_task(lived.run())
    try:
        await until(lambda: task.done() or lived._source.stage == "running")
        yield task
    finally:
        lived._stop.set()
        await asyncio.wait([task])


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - it is said in many places
            await asyncio.sleep(0.01)


def codes(lived: Life) -> set[str]:
    """The codes of all warnings that there are now."""
    return {row.code for row in lived._source.rows("warnings") if isinstance(row, WarningStatus)}
