"""Runs a command with the rights that systemd/branchline.service gives, and with no other.

    python3 -m tests.lab.confined COMMAND...

Its user, its capabilities, no new privileges, no memory that is both written and executed, and its
umask. What systemd does with mounts and system call filters is not here.
"""

import ctypes
import os
import sys

USER = 4711  # stands for the user `branchline`
CAPABILITIES = (
    "net_admin",
    "bpf",
    "net_raw",
    "net_bind_service",
    "sys_chroot",
    "setuid",
    "setgid",
    "kill",
)

_PR_SET_MDWE = 65  # prctl(2), since Linux 6.3
_PR_MDWE_REFUSE_EXEC_GAIN = 1


def argv(*command: str) -> list[str]:
    """The command, confined."""
    return ["python3", "-m", "tests.lab.confined", *command]


def main() -> None:
    os.umask(0o027)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_MDWE, _PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    given = ",".join(["-all", *(f"+{name}" for name in CAPABILITIES)])
    setpriv = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    rights = [f"--{kind}={given}" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
    os.execvp("setpriv", [*setpriv, *rights, "--no-new-privs", *sys.argv[1:]])


if __name__ == "__main__":
    main()
