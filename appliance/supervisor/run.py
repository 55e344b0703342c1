"""From a configuration file to a running box, and back to a kernel that is left alone.

The stages of life and what each does about errors: docs/ERRORS.md. At the start a configuration
that cannot be used is replaced by the last one that could be, so that a typing error never leaves
a box without local access.
"""

import asyncio
import hashlib
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from appliance import clock
from appliance.api.listen import serve
from appliance.api.problems import config_problems
from appliance.config.errors import ConfigError, Problem
from appliance.config.intent import Intent
from appliance.config.load import parse_config, read_config
from appliance.contract.status import ConfigStatus, Reloaded
from appliance.contract.wire import SOCKET_NAME
from appliance.core.codec import encode_event
from appliance.kernel import ebpf
from appliance.kernel.features import is_proven, missing_features
from appliance.kernel.files import write_whole
from appliance.kernel.kernel import Kernel, KernelError, MissingFeature
from appliance.kernel.keys import KeyFileError, load_keys, load_probe_key
from appliance.kernel.linux import LinuxKernel
from appliance.kernel.lock import AlreadyRunningError, SupervisorLock
from appliance.kernel.monitor import Monitor
from appliance.kernel.process import ProcessError
from appliance.kernel.schedule import let_others_interrupt
from appliance.services.dhcp import make_leases_directory
from appliance.supervisor.box import Box, Settings
from appliance.supervisor.disk import Disk
from appliance.supervisor.notify import Notifier
from appliance.supervisor.reconciler import NotInForceError
from appliance.supervisor.source import Source
from appliance.telemetry.recorder import Recorder
from appliance.telemetry.segments import RECORDER_DIRECTORY

T = TypeVar("T")

log = logging.getLogger(__name__)

LAST_GOOD = "last-good.yaml"
END_S = 1.0  # how long the end waits for a disk
FAILED = 1
# What is told in a sentence. Anything else is a fault of our own and leaves a traceback.
EXPLAINED = (AlreadyRunningError, KeyFileError, ConfigError, KernelError, ProcessError, OSError)


def run(config: Path, state: Path, run_directory: Path) -> int:
    """Run a box until SIGTERM or SIGINT. The exit status: 0 stopped, 1 failed.

    `state` holds the key and the recordings; its disk may be full or read-only. `run_directory`
    holds what lives as long as the boot: leases, records of DHCP clients, the API's socket. What
    went wrong and what to do about it is printed on standard error.
    """
    run_directory = run_directory.absolute()  # dhcpcd works elsewhere
    try:
        ebpf.keep_from_children()
        let_others_interrupt()
        for directory in (state, run_directory):
            directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        make_leases_directory(run_directory)
        return asyncio.run(_run(config, state, run_directory))
    except EXPLAINED as error:
        print(f"branchline: {error}", file=sys.stderr)
        return FAILED
    except ExceptionGroup as group:  # out of what goes on side by side
        explained, rest = group.split(EXPLAINED)
        if explained is None or rest is not None:
            raise
        log.error("the supervisor ends", exc_info=group)
        for each in _each(explained):
            print(f"branchline: {each}", file=sys.stderr)
        return FAILED


def _each(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _each(each)
        else:
            yield each


async def _run(config: Path, state: Path, run_directory: Path) -> int:
    lock = SupervisorLock()
    try:
        is_new = not is_proven()
        if is_new and _lacks(await missing_features()):
            return FAILED
        loaded = _read(config, state)
        kernel = LinuxKernel(loaded.settings.keys)
        if is_new and _lacks(await _missing_for(loaded.settings.intent, kernel)):
            return FAILED
        await Life(config, state, run_directory, loaded, kernel).run()
        return 0
    finally:
        lock.close()


def _lacks(missing: Sequence[MissingFeature]) -> bool:
    """Is anything missing? It is told."""
    for feature in missing:
        print(f"branchline: this box lacks {feature.name}: {feature.remedy}", file=sys.stderr)
    return bool(missing)


async def _missing_for(
    intent: Intent, kernel: Kernel, proven: Intent | None = None
) -> tuple[MissingFeature, ...]:
    """What the kernel lacks for an intent. What the `proven` one needs too is there."""
    wanted = _shaping(intent)
    if wanted <= (_shaping(proven) if proven is not None else 0):
        return ()
    return await kernel.missing_for_shaping(has_shares=wanted > 1)


def _shaping(intent: Intent) -> int:
    """How much of it there is: 0 none, 1 rates of lines, 2 shares of classes or sites too."""
    shaped = [uplink.shaping for uplink in intent.uplinks if uplink.shaping is not None]
    has_lines = any(line.down_bps for peer in intent.peers for line in peer.uplinks)
    has_shares = has_lines or any(shaping.shares or shaping.sites for shaping in shaped)
    return 1 + has_shares if shaped else 0


class Loaded(NamedTuple):
    """A configuration as it was read, once, and what it makes of a box."""

    settings: Settings
    text: str
    told: ConfigStatus


def _read(config: Path, state: Path) -> Loaded:
    """The configuration, or the last good one with what is wrong with this one."""
    try:
        return load(config, state)
    except (ConfigError, KeyFileError) as error:
        last_good = state / LAST_GOOD
        if not last_good.exists():
            raise
        log.error("configuration refused, going on with the last good one", exc_info=error)
        refused = error if isinstance(error, ConfigError) else as_config_error(config, error)
        loaded = load(last_good, state, beside=config.parent)
        return loaded._replace(told=replace(loaded.told, refused=config_problems(refused)))


def load(config: Path, state: Path, *, beside: Path | None = None) -> Loaded:
    """Read a configuration and its secrets. Raises ConfigError and KeyFileError."""
    text = read_config(config)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    intent = parse_config(text, str(config))
    folder = beside or config.parent
    keys = load_keys(intent, state, folder)
    if any(peer.public_key == keys.public for peer in intent.peers):
        intent = parse_config(text, str(config), keys.public)  # says which peer has our own key
    key_file = intent.probing.key_file
    settings = Settings(intent, keys, load_probe_key(folder / key_file) if key_file else None)
    return Loaded(settings, text, ConfigStatus(str(config), digest, clock.wall_ns() / 1e9))


def as_config_error(config: Path, error: Exception) -> ConfigError:
    """Trouble beside the configuration, told as trouble with it."""
    return ConfigError(str(config), [Problem("", 1, 1, str(error))])


class Life:
    """One run of the supervisor, from adoption to the signal that ends it."""

    def __init__(
        self, config: Path, state: Path, run_directory: Path, loaded: Loaded, kernel: Kernel
    ) -> None:
        self._text = loaded.text  # of the configuration that is wanted or in force
        self._config = config
        self._state = state
        self._socket = run_directory / SOCKET_NAME
        self._kernel = kernel
        self._disk = Disk("configuration", wait_s=60.0)  # a hub's takes a while to read
        self._state_disk = Disk("state")
        self._box = Box(loaded.settings, kernel, Monitor(kernel.ports), run_directory)
        self._notifier = Notifier()
        recordings = state / RECORDER_DIRECTORY
        self._recorder = Recorder(recordings, os.urandom(4).hex(), encode_event, self._recording)
        self._source = Source(self._box, self._recorder, recordings, loaded.told, self.reload)
        self._reloading = asyncio.Lock()
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stop = asyncio.Event()
        self._fault: BaseException | None = None

    async def run(self) -> None:
        """Until a signal ends it. Raises KernelError when the kernel cannot even be read.

        A fault of our own ends it too, and is raised: whoever started us does so again.
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._failed)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        await self._box.adopt()
        async with AsyncExitStack() as stack:
            stack.callback(self._notifier.close)
            stack.callback(self._state_disk.finish, END_S)
            await stack.enter_async_context(serve(self._source, self._socket))
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._start(self._box.run(), "box")
                self._start(self._recorder.run(), "recorder")
                self._start(self._source.run(), "feed")
                self._start(self._notifier.watchdog(), "watchdog")
                self._start(self._announce(), "announce")
                loop.add_signal_handler(
                    signal.SIGHUP, lambda: self._start(self._hang_up(), "hang up")
                )
                await self._stop.wait()
                self._source.stage = "stopping"
                self._notifier.stopping()
                for task in self._tasks:
                    task.cancel()
        self._kernel.close()
        if self._fault is not None:
            raise self._fault

    def _start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Do this beside the rest. An exception that comes out of it ends the run."""
        assert self._group is not None  # noqa: S101 - it is made before anybody can ask
        task = self._group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop caught an exception. Out of a callback of ours, such as a timer, it is a fault.

        asyncio would only log it, and that callback would never come again while the watchdog is
        told that all is well. What it tells of connections of the API has no handle.
        """
        loop.default_exception_handler(context)
        if "handle" in context and self._fault is None:
            self._fault = context["exception"]
            self._stop.set()

    async def _announce(self) -> None:
        """Say that the box is in service, and keep its configuration as the last good one."""
        await self._box.in_force.wait()
        self._source.stage = "running"
        intent = self._box.settings.intent
        await self._keep_last_good()
        self._notifier.ready(f"{intent.site}: {len(intent.peers)} peers")

    async def _keep_last_good(self) -> None:
        path = Path(self._source.config.file)
        last_good, text = self._state / LAST_GOOD, self._text
        if path == last_good:
            return
        loop = asyncio.get_running_loop()

        def is_wanted() -> bool:
            return self._text == text

        def keep() -> None:
            write_whole(last_good, text.encode(), is_wanted)
            # also when nobody waits for it any more: what hung is over
            loop.call_soon_threadsafe(tell, None)

        def tell(trouble: str | None) -> None:
            if is_wanted():  # else it is for whoever keeps the newer one to tell
                self._box.warnings.warn("last-good", "configuration", "warning", trouble)

        try:
            await self._state_disk.run(keep)
        except OSError as error:
            tell(f"the configuration cannot be kept as the last good one: {error}")

    async def _hang_up(self) -> None:
        try:
            await self.reload()
        except ConfigError as error:
            log.error("configuration refused", extra={"error": str(error)})

    async def reload(self) -> Reloaded:
        """Read the configuration again and bring the kernel to it, or go back.

        Raises ConfigError with every reason, after which the old configuration holds. It is done
        to its end, even when whoever asked for it has left.
        """
        outcome = await asyncio.shield(self._start(self._reload(), "reload"))
        if isinstance(outcome, ConfigError):
            raise outcome
        return outcome

    async def _reload(self) -> Reloaded | ConfigError:
        async with self._reloading:
            self._notifier.reloading()
            before, told = self._box.settings, self._source.config
            try:
                loaded = await self._disk.run(load, self._config, self._state)
                await self._refuse_what_lacks(loaded.settings.intent)
                await self._box.change(loaded.settings)
            except (ConfigError, KeyFileError, NotInForceError, OSError) as error:
                refused = (
                    error
                    if isinstance(error, ConfigError)
                    else as_config_error(self._config, error)
                )
                self._source.config = replace(told, refused=config_problems(refused))
                await self._go_back(before)
                return refused
            finally:
                if self._box.in_force.is_set():  # else the first plan is still to be announced
                    self._notifier.ready(f"{self._box.settings.intent.site}")
            self._text, self._source.config = loaded.text, loaded.told
            await self._keep_last_good()
            return Reloaded(loaded.told.digest, loaded.told.digest != told.digest)

    async def _refuse_what_lacks(self, intent: Intent) -> None:
        """Raises ConfigError with all that the kernel lacks for what the intent has in addition."""
        proven = self._box.settings.intent if self._box.in_force.is_set() else None
        if missing := await _missing_for(intent, self._kernel, proven):
            lacks = [Problem("", 1, 1, f"this box lacks {f.name}", f.remedy) for f in missing]
            raise ConfigError(str(self._config), lacks)

    async def _go_back(self, before: Settings) -> None:
        """Bring the settings into force that were; when that fails too, it is tried on and on."""
        if self._box.settings is before:
            return
        try:
            await self._box.change(before)
        except (NotInForceError, OSError) as error:
            log.error("the old configuration is not in force again", extra={"error": str(error)})
            self._box.wake()

    def _recording(self, trouble: str | None) -> None:
        text = None if trouble is None else f"what happens is not being recorded: {trouble}"
        self._box.warnings.warn("recorder", "recordings", "warning", text)
