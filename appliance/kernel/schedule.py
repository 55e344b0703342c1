"""How the scheduler treats this process beside the kernel's own threads (sched_setattr(2)).

WireGuard encrypts in ordinary threads. On one core, one of them that wakes up while we run waits
until our slice is over, which is looked at every 4 ms only. Since Linux 6.12 a thread says how long
a slice it wants (EEVDF), and one that wants less interrupts it; its share stays the same.
"""

import ctypes
import logging
import os
import platform
import struct

log = logging.getLogger(__name__)

SLICE_NS = 20_000_000  # the kernel's own threads have 0.7 ms to 3 ms
_SYSCALLS = {"x86_64": 314, "aarch64": 274}
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")  # size, policy, flags, nice, priority, runtime, ...
_OTHER = 0  # SCHED_OTHER


def let_others_interrupt() -> None:
    """Want a longer slice than others do. Where the kernel refuses, everything stays as it is."""
    number = _SYSCALLS.get(platform.machine())
    if number is None:
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    wanted = _ATTRIBUTES.pack(_ATTRIBUTES.size, _OTHER, 0, nice, 0, SLICE_NS, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, 0, wanted, 0):
        log.info("no slice of our own", extra={"error": os.strerror(ctypes.get_errno())})
