"""Watch what changes in a site's kernel, by the kernel's own notices: `ip -timestamp monitor`.

Independent of what the product says about itself, and free while nothing changes.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lab.machine import Machine

_STAMP = re.compile(r"^\[([\d:T.-]+)\] ?(.*)$")
_READY_S = 5.0


@dataclass(frozen=True, slots=True)
class Notice:
    """One line of `ip monitor`, such as "192.168.2.0/24 nhid 184549410 dev bl-1-1 table 17"."""

    at: float  # seconds since 1970 on the guest's clock
    text: str


class KernelMonitor:
    """Runs from its creation to the end of the story."""

    def __init__(self, machine: Machine, *objects: str) -> None:
        """`objects` are words of `ip monitor`: "route", "nexthop", "rule", "address", "link"."""
        argv = ["ip", "-timestamp", "-tshort", "monitor", *objects]
        self._daemon = machine.background(argv, name=f"monitor-{'-'.join(objects)}")
        self._machine = machine
        self._wait_until_it_listens()

    def notices(self, since: float = 0.0, words: Sequence[str] = ()) -> list[Notice]:
        """Everything told since that time (`time.time()`) whose text holds all these words."""
        found = []
        at = 0.0
        for line in self._daemon.output().splitlines():
            match = _STAMP.match(line)
            if match:
                at = datetime.fromisoformat(match[1]).timestamp()
            text = match[2] if match else line.strip()
            is_told = at > 0  # before the first notice, `ip` complains of namespaces it cannot name
            if is_told and text and at >= since and all(word in text for word in words):
                found.append(Notice(at, text))
        return found

    def stop(self) -> None:
        self._daemon.stop()

    def _wait_until_it_listens(self) -> None:
        """Until its netlink socket is bound: then no later change is missed."""
        pid, end = self._daemon.pid, time.monotonic() + _READY_S
        while time.monotonic() < end:
            listed = self._machine.run(["cat", "/proc/net/netlink"])
            if any(line.split()[2] == str(pid) for line in listed.splitlines()[1:]):
                return
            time.sleep(0.005)
        message = f"{self._machine.name}: ip monitor does not listen"
        raise RuntimeError(message)
