"""Whatever the sockets say, callers of the kernel hear KernelError: they observe and try again."""

import errno
import socket
from collections.abc import Iterator
from typing import NoReturn

import pytest

from appliance.kernel.kernel import KernelError
from appliance.kernel.keys import Keys
from appliance.kernel.linux import LinuxKernel
from appliance.kernel.netlink import InterruptedDumpError
from appliance.plan.filter import FILTER_KEY
from appliance.plan.plan import Delete, Filter, Key, Kind, Nexthop

NOBODYS = 4_000_000_000  # the first of the nexthop ids that nobody has: deleting one does nothing


@pytest.fixture
def kernel() -> Iterator[LinuxKernel]:
    opened = LinuxKernel(Keys("", {}, b"", {}))
    opened._is_safe = True  # so that nothing of this machine is touched
    yield opened
    opened.close()


def _deletes(count: int) -> list[Delete]:
    keys = [Key(Kind.NEXTHOP, (NOBODYS + number,)) for number in range(count)]
    return [Delete(key, Nexthop(4, "lo")) for key in keys]


def _closed(opened: LinuxKernel) -> LinuxKernel:
    opened.close()
    return opened


def test_answers_to_a_move_that_are_lost(kernel: LinuxKernel) -> None:
    kernel._steering._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    with pytest.raises(KernelError) as raised:
        kernel.steer(_deletes(2000))
    assert raised.value.errno == errno.ENOBUFS


def test_a_move_through_a_socket_that_fails(kernel: LinuxKernel) -> None:
    with pytest.raises(KernelError) as raised:
        _closed(kernel).steer(_deletes(1))
    assert raised.value.errno == errno.EBADF


async def test_an_operation_through_a_socket_that_fails(kernel: LinuxKernel) -> None:
    with pytest.raises(KernelError):
        await _closed(kernel).apply(_deletes(1))


async def test_a_table_that_the_kernel_says_nothing_of(
    kernel: LinuxKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(_batch: object) -> NoReturn:
        raise BlockingIOError(errno.EAGAIN, "no answer")

    monkeypatch.setattr(kernel._nftables._netlink, "ask", ask)
    table = Delete(FILTER_KEY, Filter("", ""))
    with pytest.raises(KernelError) as raised:
        await kernel.apply([table])
    assert (raised.value.errno, raised.value.op) == (errno.EAGAIN, table)


async def test_a_listing_that_changes_all_the_time(
    kernel: LinuxKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dump(_kind: int, _payload: bytes) -> NoReturn:
        raise InterruptedDumpError

    monkeypatch.setattr(kernel._netlink, "dump", dump)
    with pytest.raises(KernelError) as raised:
        await kernel.observe(())
    assert raised.value.errno == errno.EINTR


def test_counters_that_cannot_be_read_are_unknown(kernel: LinuxKernel) -> None:
    assert _closed(kernel).read_counters(["a", "b"]) == (None, None)
