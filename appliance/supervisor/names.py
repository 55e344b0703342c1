"""The name server of LANs: one dnsmasq, kept running and told whom to ask.

Without it nothing but names suffers: lines forward, and what was learned of addresses stays.
"""

import asyncio
import logging
import os
import shutil
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from appliance import clock
from appliance.config.intent import Intent
from appliance.contract.ids import Slot
from appliance.core.state import UplinkState
from appliance.kernel.kernel import Kernel, KernelError
from appliance.kernel.process import adopt
from appliance.probing import dns
from appliance.services.child import Service, end, read_record
from appliance.services.dnsmasq import (
    NAME,
    SIGN_OF_LIFE,
    TURN_S,
    configuration,
    program,
    servers,
)

ASK_S = 5.0  # between two questions whether it lives
ANSWER_S = 2.0
PORT = 53
HUNG = 3  # questions in a row without an answer
RETRY_S = 10.0

log = logging.getLogger(__name__)


class NotHereError(Exception):
    """The address of the LAN is not on this box now."""


class NameServer:
    """Files go to `directory`. `warn` takes why hosts get no answers, or None."""

    def __init__(
        self,
        kernel: Kernel,
        directory: Path,
        jitter: Callable[[], float],
        warn: Callable[[str | None], None],
    ) -> None:
        self._kernel = kernel
        self._directory = directory
        self._jitter = jitter
        self._warn = warn
        self._intent: Intent | None = None
        self._working: tuple[object, ...] = ()
        self._text: str | None = None
        self._servers = ""
        self._told: str | None = None  # as its file has them, if we wrote it
        self._changed = asyncio.Event()
        self._missed = 0  # questions in a row without an answer
        self._silent = 0  # questions in a row that it left unanswered
        self._troubles: dict[str, str] = {}
        self._loads = 0  # of tables, so far

    @property
    def _file(self) -> Path:
        return self._directory / f"{NAME}.conf"

    @property
    def _servers_file(self) -> Path:
        return self._directory / f"{NAME}.servers"

    def want(self, intent: Intent, uplinks: Mapping[Slot, UplinkState]) -> None:
        """What it shall do from now on. Called often while probes are lost, so it looks first."""
        working = tuple((slot, u.is_usable, u.facts) for slot, u in uplinks.items())
        if intent is self._intent and working == self._working:
            return
        self._intent, self._working = intent, working
        text = configuration(intent, self._servers_file)
        whom = "" if text is None else servers(intent, uplinks)
        if (text, whom) != (self._text, self._servers):
            self._text, self._servers = text, whom
            self._changed.set()

    def tables_are(self, loads: int) -> None:
        """So many tables were loaded so far. A new one lacks what dnsmasq has in its cache."""
        if loads != self._loads:
            self._loads = loads
            self._ask_again()

    async def run(self) -> None:
        """Keep it running for as long as a LAN wants it. Cancelling leaves it alone."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._empty_by_turns(), name="learned addresses")
            while True:
                try:
                    await self._serve()
                except OSError as error:
                    log.warning("name server has to wait", extra={"error": str(error)})
                    self._trouble("files", f"its files cannot be written: {error.strerror}")
                    await asyncio.sleep(RETRY_S)

    async def _serve(self) -> None:
        """One configuration, until another is wanted. Raises OSError."""
        self._changed.clear()
        text = self._text
        if text is None:
            await end(self._directory / f"{NAME}.child", signal.SIGTERM)
            for source in ("files", "servers", "program", "silence"):
                self._trouble(source, None)
            self._missed = self._silent = 0
            await self._changed.wait()
            return
        if shutil.which("dnsmasq") is None:  # whoever starts it for us would not say so
            self._trouble("files", "dnsmasq is not there: install dnsmasq-base")
            await asyncio.sleep(RETRY_S)
            return
        self._file.write_text(text)
        self._trouble("files", None)
        self._tell_servers()
        wanted = program(self._file, text, is_root=os.geteuid() == 0)
        told = partial(self._trouble, "program")
        service = Service(wanted, self._directory, self._jitter, self._is_hung, told)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(service.run()), group.create_task(self._ask())]
            while self._text == text:
                await self._changed.wait()
                self._changed.clear()
                self._tell_servers()
            for each in tasks:
                each.cancel()
        await service.end()

    def _tell_servers(self) -> None:
        """Write down whom to ask and have it read that, if it runs. Tried again when it fails."""
        if self._servers == self._told:
            return
        try:
            new = self._servers_file.with_suffix(".new")
            new.write_text(self._servers)
            new.replace(self._servers_file)
        except OSError as error:
            log.warning("name servers cannot be written", extra={"error": str(error)})
            self._trouble("servers", f"whom to ask cannot be written: {error.strerror}")
            asyncio.get_running_loop().call_later(RETRY_S, self._changed.set)
            return
        self._told = self._servers
        self._trouble("servers", None)
        self._ask_again()

    def _trouble(self, source: str, text: str | None) -> None:
        """Tell what is wrong of several things: the first of them, and None when nothing is."""
        self._troubles.pop(source, None)
        if text is not None:
            self._troubles[source] = text
        self._warn(next(iter(self._troubles.values()), None))

    def _ask_again(self) -> None:
        """Have it read whom to ask, and forget what it knows by heart, if it runs."""
        record = read_record(self._directory / f"{NAME}.child")
        child = adopt(record.pid, record.birth) if record else None
        if child is not None:
            with suppress(OSError):
                child.send(signal.SIGHUP)
            child.close()

    def _is_hung(self, _pid: int) -> bool:
        """Does it leave our own questions unanswered? Told once: the next one begins anew."""
        is_hung = self._silent >= HUNG
        if is_hung:
            self._silent = 0
        return is_hung

    def _heard(self, is_alive: bool | None) -> None:
        """What became of a question: answered, unanswered, or None, refused."""
        self._silent = self._silent + 1 if is_alive is False else 0
        self._missed = 0 if is_alive else self._missed + 1
        if not self._missed:
            self._trouble("silence", None)
        elif self._missed == HUNG:
            self._trouble("silence", "dnsmasq does not answer; what it says of that is in the log")

    async def _ask(self) -> None:
        """Ask it now and then for a name that it knows by itself."""
        ident = 0
        while True:
            ident = (ident + 1) & 0xFFFF
            if (at := self._address()) is not None:
                with suppress(NotHereError):
                    self._heard(await _is_alive(at, ident))
            await asyncio.sleep(ASK_S)

    def _address(self) -> str | None:
        lans = self._intent.lans if self._intent is not None else ()
        return next((str(each.ip) for lan in lans if lan.dns for each in lan.addresses), None)

    async def _empty_by_turns(self) -> None:
        """Forget addresses that were told more than a turn ago, one set of each pair a turn.

        Which one follows from the time since boot, so that a restart neither skips nor repeats.
        """
        while True:
            now = clock.monotonic()
            turn = int(now // TURN_S) + 1
            await asyncio.sleep(turn * TURN_S - now)
            if self._text is None:
                continue
            try:
                await self._kernel.empty_learned("ab"[turn % 2])
            except KernelError as error:
                log.warning("learned addresses are kept for longer", extra={"error": str(error)})


async def _is_alive(address: str, ident: int) -> bool | None:
    """Does it answer? None when nobody listens. Raises NotHereError."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as ours:
            try:
                ours.bind((address, 0))
            except OSError as error:
                raise NotHereError from error
            ours.connect((address, PORT))
            ours.send(dns.encode_query(ident, SIGN_OF_LIFE))
            async with asyncio.timeout(ANSWER_S):
                data = await loop.sock_recv(ours, 512)
    except TimeoutError:
        return False
    except OSError:
        return None
    return dns.answer_code(data, ident, SIGN_OF_LIFE) == 0
