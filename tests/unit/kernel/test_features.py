"""What a kernel lacks is named once, and nothing is blamed that could not even be tried.

A kernel that has everything is met in the lab (tests/contract/real_checks.py).
"""

import errno
import socket
import sys
from collections.abc import Sequence

import pytest

from appliance.kernel import rtnetlink as rt
from appliance.kernel.features import _rtnetlink, is_proven
from appliance.kernel.netlink import Netlink, Refusal


class Lacking(Netlink):
    """Answers as where devices of these kinds do not exist. Nothing reaches the kernel."""

    def __init__(self, *kinds: bytes, error: int = errno.EOPNOTSUPP) -> None:
        super().__init__(socket.NETLINK_ROUTE)
        self.made: list[bytes] = []
        self._kinds = kinds
        self._error = error

    def send(self, batch: Sequence[bytes]) -> tuple[Refusal, ...]:
        (sent,) = batch
        if int.from_bytes(sent[4:6], sys.byteorder) == rt.NEWLINK:
            if any(kind in sent for kind in self._kinds):
                return (Refusal(0, self._error, ""),)
            self.made.append(sent)
        return ()


@pytest.mark.parametrize(
    ("kinds", "missing"),
    [
        ([b"dummy"], ["dummy devices"]),
        ([b"wireguard", b"dummy"], ["WireGuard", "dummy devices"]),
    ],
)
def test_what_stands_on_what_is_missing_is_not_blamed(kinds: list[bytes], missing: list[str]):
    kernel = Lacking(*kinds)
    assert [feature.name for feature in _rtnetlink(kernel)] == missing
    assert len(kernel.made) == 2 - len(kinds)
    kernel.close()


def test_without_the_right_to_try_nothing_is_said_to_be_missing():
    kernel = Lacking(b"wireguard", error=errno.EPERM)
    with pytest.raises(PermissionError, match="CAP_NET_ADMIN"):
        _rtnetlink(kernel)
    kernel.close()


@pytest.mark.parametrize(
    ("names", "is_so"),
    [(["lo", "bl-mgmt", "bl-probe", "bl-up1", "xbl-1-1"], False), (["lo", "bl-3-12"], True)],
)
def test_a_kernel_that_holds_a_plane_is_not_tried(
    monkeypatch: pytest.MonkeyPatch, names: list[str], is_so: bool
):
    monkeypatch.setattr(socket, "if_nameindex", lambda: list(enumerate(names)))
    assert is_proven() is is_so
