"""What strangers on an uplink send: DNS answers, echo replies, leases, and what programs say of it.

Answers that are not ours are no error but no answer. A hook file is facts or a HookError.
"""

import contextlib
import logging

from appliance.probing.dns import answer_code, is_proof
from appliance.probing.echo import encode_request, is_reply
from appliance.services.child import LONGEST_LINE, Lines
from appliance.services.lease import (
    MOST_LISTED,
    HookError,
    LeaseFacts,
    lease4_of,
    lease6_of,
    parse_message,
    routers_of,
)
from tests.fuzz.harness import Target
from tests.unit.services.hook import ADVERT, BOUND, BOUND6, hook_file

IDENT, NAME = 0xBEEF, "example.net"
QUESTION = b"\x07example\x03net\x00\x00\x01\x00\x01"
ANSWER = b"\xbe\xef\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" + QUESTION + b"\xc0\x0c" + bytes(14)
REFUSAL = b"\xbe\xef\x81\x85\x00\x00\x00\x00\x00\x00\x00\x00"

TOKEN = b"12345678"
IP_HEADER = b"\x45" + bytes(19)


def read_answer(data: bytes) -> None:
    code = answer_code(data, IDENT, NAME)
    if code is None:
        return
    assert 0 <= code <= 15
    assert data[:2] == ANSWER[:2]
    if is_proof(code):
        assert QUESTION.lower() in data.lower()


def read_reply_v4(data: bytes) -> None:
    if is_reply(data, 4, IDENT, TOKEN):
        assert data.endswith(TOKEN)


def read_reply_v6(data: bytes) -> None:
    if is_reply(data, 6, IDENT, TOKEN):
        assert data == b"\x81\x00" + data[2:4] + b"\xbe\xef\x00\x01" + TOKEN


def read_hook_file(data: bytes) -> None:
    with contextlib.suppress(HookError):
        message = parse_message(data)
        with contextlib.suppress(HookError):
            check_facts(LeaseFacts(lease4=lease4_of(message, 50.0, 2000.0)))
        with contextlib.suppress(HookError):
            check_facts(LeaseFacts(routers=routers_of(message, 50.0, 2000.0)))
        with contextlib.suppress(HookError):
            check_facts(LeaseFacts(lease6=lease6_of(message, 50.0, 2000.0)))


def check_facts(facts: LeaseFacts) -> None:
    """Whatever was read can be used as it is."""
    assert len(facts.routers) <= MOST_LISTED
    assert len(facts.gateways) <= 2
    for gateway in facts.gateways:
        assert not gateway.is_unspecified
        assert not gateway.is_multicast
    if facts.next_end_s is not None:
        assert facts.at(facts.next_end_s) != facts


def log_output(data: bytes) -> None:
    """Lines of a log are short and can be shown on a terminal, whatever a program says."""
    told: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = told.append  # type: ignore[method-assign]
    logger = logging.getLogger("appliance.services.child")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        lines = Lines("p")
        for start in range(0, len(data), 7):
            lines.feed(data[start : start + 7], start / 10)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
    for record in told:
        line = getattr(record, "line", "")
        assert len(line) <= LONGEST_LINE
        assert line.isprintable()


TARGETS = (
    Target("dns-answer", read_answer, (ANSWER, REFUSAL)),
    Target(
        "icmp-reply",
        read_reply_v4,
        (IP_HEADER + encode_request(4, IDENT, TOKEN).replace(b"\x08", b"\x00", 1),),
    ),
    Target(
        "icmpv6-reply",
        read_reply_v6,
        (encode_request(6, IDENT, TOKEN).replace(b"\x80", b"\x81", 1),),
    ),
    Target("dhcpcd-hook", read_hook_file, tuple(map(hook_file, (BOUND, ADVERT, BOUND6)))),
    Target("child-output", log_output, (b"wan0: leased\n\x1b[2J\xff\n", b"x" * 1200 + b"\n")),
)
