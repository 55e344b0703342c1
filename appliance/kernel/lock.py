"""One supervisor per network namespace.

What must be guarded is the kernel's state, and that belongs to a network namespace. So does an
abstract Unix socket (unix(7)): two supervisors that would write to the same tables meet here even
with different state folders, and two in different namespaces never do. The kernel lets go of it
when the process ends, however it ends.
"""

import errno
import socket

from appliance.config.addressing import NFT_TABLE

_NAME = f"\0{NFT_TABLE}/supervisor"


class AlreadyRunningError(Exception):
    """Another supervisor holds this network namespace."""


class SupervisorLock:
    """Held from the moment it is made until `close` or the end of the process."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.bind(_NAME)
        except OSError as error:
            self._socket.close()
            if error.errno != errno.EADDRINUSE:
                raise
            message = (
                "another supervisor runs in this network namespace: stop it first "
                "(systemctl stop branchline), or look at it with `branchline status`"
            )
            raise AlreadyRunningError(message) from error

    def close(self) -> None:
        self._socket.close()
