"""Netlink messages and one synchronous netlink socket (linux/netlink.h).

The kernel carries a request out inside `send`, so waiting for the answer costs nothing and needs
no event loop. Knows framing, attributes and acknowledgements; knows nothing of routes.
"""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import NamedTuple

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCL, CREATE = 0x100, 0x200, 0x400
_DUMP_INTERRUPTED = 0x10
_ACK_WITH_ATTRIBUTES = 0x200
_ERROR, _DONE = 2, 3
_SOL_NETLINK = 270
_OPTION_CAP_ACK, _OPTION_EXT_ACK, _OPTION_STRICT = 10, 11, 12
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_ERROR_TEXT = 1  # NLMSGERR_ATTR_MSG
_BUFFER = 4 << 20
_READ = 1 << 18
_LARGEST = 0xFFFFFFFF  # sequence number
ANSWER_S = 2

HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ATTRIBUTE_U32 = struct.Struct("=HHI")
_INT = struct.Struct("=i")
_TIME = struct.Struct("@ll")  # struct timeval
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")
_TYPE_MASK = 0x3FFF  # without the flags NESTED and NET_BYTEORDER
NESTED = 0x8000


class Refusal(NamedTuple):
    """What the kernel said to one message of a batch."""

    place: int  # in the batch, from 0
    errno: int
    detail: str


class InterruptedDumpError(OSError):
    """What was being dumped changed underneath. Dump again."""

    def __init__(self) -> None:
        super().__init__(errno.EINTR, "what is being listed changes all the time")


def message(kind: int, flags: int, payload: bytes) -> bytes:
    """A whole message; the sequence number is filled in when it is sent."""
    return HEADER.pack(16 + len(payload), kind, flags | REQUEST, 0, 0) + payload


def attribute(kind: int, payload: bytes) -> bytes:
    size = len(payload)
    return _ATTRIBUTE.pack(size + 4, kind) + payload + _PADDING[size & 3]


def attribute_u32(kind: int, value: int) -> bytes:
    return _ATTRIBUTE_U32.pack(8, kind, value)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """Attributes by type. Of several with one type the last counts: for lists use `elements`."""
    return dict(elements(data, start))


def elements(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Attributes in order, as far as they are whole."""
    end = len(data)
    while start + 4 <= end:
        size, kind = _ATTRIBUTE.unpack_from(data, start)
        if size < 4 or start + size > end:
            return
        yield kind & _TYPE_MASK, data[start + 4 : start + size]
        start += (size + 3) & ~3


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, payload) of each whole message in a datagram."""
    start, end = 0, len(data)
    while start + 16 <= end:
        size, kind, flags, sequence, _ = HEADER.unpack_from(data, start)
        if size < 16 or start + size > end:
            return
        yield kind, flags, sequence, data[start + 16 : start + size]
        start += (size + 3) & ~3


class Netlink:
    """A socket for requests. Not for use by two callers at once.

    Every method raises OSError when the socket fails; ENOBUFS: answers were lost, so that nobody
    knows what was done; EAGAIN: no answer came. The kernel works while we send, so an answer that
    is not there soon never comes, and who waited for it would stand still for good.
    """

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family
        )
        self._sequence = 0
        for name in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            # The forced kind passes net.core.?mem_max and takes CAP_NET_ADMIN; reading does not.
            with contextlib.suppress(PermissionError):
                self._socket.setsockopt(socket.SOL_SOCKET, name, _BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIME.pack(ANSWER_S, 0))
        for option in (_OPTION_CAP_ACK, _OPTION_EXT_ACK, _OPTION_STRICT):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))

    @property
    def port(self) -> int:
        """The kernel names this number in the notices of what we changed."""
        port: int = self._socket.getsockname()[0]
        return port

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """For an event loop to wait on, where a socket is told things unasked."""
        return self._socket.fileno()

    def read_now(self) -> bytes:
        """One datagram of what was told unasked; empty when there is none."""
        try:
            return self._socket.recv(_READ, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""

    def send(self, batch: Sequence[bytes]) -> tuple[Refusal, ...]:
        """Send all messages at once and say which of them the kernel refused, in order.

        Only the last asks for an acknowledgement: the kernel answers in order, and a refusal comes
        unasked. So thousands of messages cost one answer.
        """
        if not batch:
            return ()
        first = self._numbers(len(batch))
        last = first + len(batch) - 1
        whole = bytearray().join(batch)
        offset = 0
        for sequence, each in enumerate(batch, first):
            struct.pack_into("=I", whole, offset + 8, sequence)
            offset += len(each)
        flags_at = len(whole) - len(batch[-1]) + 6
        (flags,) = struct.unpack_from("=H", whole, flags_at)
        struct.pack_into("=H", whole, flags_at, flags | ACK)
        self._socket.send(whole)
        refused: list[Refusal] = []
        while True:
            for kind, flags, sequence, payload in messages(self._socket.recv(_READ)):
                if kind == _ERROR and first <= sequence <= last:
                    (code,) = _INT.unpack_from(payload)
                    if code:
                        refused.append(Refusal(sequence - first, -code, _detail(flags, payload)))
                    if sequence == last:
                        return tuple(refused)

    def ask(self, batch: Sequence[bytes]) -> list[tuple[bytes, int]]:
        """The answer to each of several requests for one object: (payload, 0) or (b"", errno)."""
        answers: list[tuple[bytes, int]] = []
        first = self._numbers(len(batch))
        whole = b"".join(
            each[:8] + struct.pack("=I", sequence) + each[12:]
            for sequence, each in enumerate(batch, first)
        )
        self._socket.send(whole)
        while len(answers) < len(batch):
            for kind, _, sequence, payload in messages(self._socket.recv(_READ)):
                if sequence != first + len(answers):
                    continue
                if kind == _ERROR:
                    answers.append((b"", -_INT.unpack_from(payload)[0]))
                else:
                    answers.append((payload, 0))
        return answers

    def dump(self, kind: int, payload: bytes) -> Generator[list[bytes]]:
        """Payloads of all objects, a list for each read, so that a caller can pause between.

        Raises InterruptedDumpError when the kernel says that the listing is not of one moment.
        """
        number = self._numbers(1)
        self._socket.send(HEADER.pack(16 + len(payload), kind, REQUEST | DUMP, number, 0) + payload)
        is_done = is_interrupted = False
        try:
            while not is_done:
                found: list[bytes] = []
                for each, flags, sequence, body in messages(self._socket.recv(_READ)):
                    if sequence != number:
                        continue
                    is_interrupted |= bool(flags & _DUMP_INTERRUPTED)
                    if each in (_DONE, _ERROR):
                        is_done = True
                        code = _INT.unpack_from(body)[0] if len(body) >= 4 else 0
                        if code:
                            raise OSError(-code, os.strerror(-code))
                    else:
                        found.append(body)
                if found:
                    yield found
        finally:
            if not is_done:
                self._finish(number)
        if is_interrupted:
            raise InterruptedDumpError

    def _finish(self, number: int) -> None:
        """Read what is left of a dump that was given up: until then there can be no other."""
        with contextlib.suppress(OSError):
            while not any(
                sequence == number and kind in (_DONE, _ERROR)
                for kind, _, sequence, _ in messages(self._socket.recv(_READ))
            ):
                pass

    def _numbers(self, count: int) -> int:
        """The first of so many sequence numbers in a row, which have 32 bits."""
        if self._sequence + count > _LARGEST:
            self._sequence = 0
        first = self._sequence + 1
        self._sequence += count
        return first


def collect(parts: Iterable[list[bytes]]) -> list[bytes]:
    """All payloads of a dump at once."""
    return [payload for part in parts for payload in part]


def _detail(flags: int, payload: bytes) -> str:
    if not flags & _ACK_WITH_ATTRIBUTES:
        return ""
    # An error carries the header of the message that it answers, because of CAP_ACK no more.
    return attributes(payload, 4 + 16).get(_ERROR_TEXT, b"").rstrip(b"\0").decode(errors="replace")
