"""The grammars of names, quantities, choices and files: a YAML value -> a typed one, or Malformed.

Every grammar has one spelling. A quantity states its unit, so that nobody has to remember whether
a bare 30 would mean seconds or milliseconds.
"""

import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from difflib import get_close_matches
from enum import StrEnum
from typing import TypeVar

from appliance.config.addressing import DEVICE_PREFIX
from appliance.config.errors import HIDDEN, Malformed

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"  # a DNS label, RFC 1123 section 2.1
DEVICE_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$"
DURATION_PATTERN = r"^([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(us|ms|s|min)$"
RATE_PATTERN = r"^([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(kbit|Mbit|Gbit)/s$"
RATIO_PATTERN = r"^([0-9]{1,3}(?:\.[0-9]{1,9})?) ?%$"
PORTS_PATTERN = r"^([0-9]{1,5})-([0-9]{1,5})$"
KEY_PATTERN = r"^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"  # 32 octets end in two bits of zero
MAC_PATTERN = r"^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$"  # IEEE 802, as `ip link` prints it
DOMAIN_PATTERN = r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
URL_PATTERN = r"^https?://[!-~]{3,300}$"
FILE_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$"

MAX_TITLE = 100

_NAME = re.compile(NAME_PATTERN)
_DEVICE = re.compile(DEVICE_PATTERN)
_DURATION = re.compile(DURATION_PATTERN)
_RATE = re.compile(RATE_PATTERN)
_RATIO = re.compile(RATIO_PATTERN)
_PORTS = re.compile(PORTS_PATTERN)
_KEY = re.compile(KEY_PATTERN)
_MAC = re.compile(MAC_PATTERN)
_DOMAIN = re.compile(DOMAIN_PATTERN)
_URL = re.compile(URL_PATTERN)
_FILE = re.compile(FILE_PATTERN)
_PASTED_KEY = re.compile(r"^([A-Za-z0-9+/]{43}=?|[0-9A-Fa-f]{64})$|-----BEGIN|\n")

# The kernel has these itself; "all" and "default" are places under /proc/sys/net.
_RESERVED_DEVICES = frozenset({"lo", "all", "default"})

_BPS = {"kbit": 1_000, "Mbit": 1_000_000, "Gbit": 1_000_000_000}
_US = {"s": 1_000_000, "ms": 1_000, "us": 1, "min": 60_000_000}

# RFC 2474 (cs0-cs7, df), 2597 (af), 3246 (ef), 5865 (va), 8622 (le)
DSCP: dict[str, int] = {"df": 0, "le": 1, "va": 44, "ef": 46}
DSCP |= {f"cs{n}": 8 * n for n in range(8)}
DSCP |= {f"af{c}{drop}": 8 * c + 2 * drop for c in range(1, 5) for drop in range(1, 4)}

_Choice = TypeVar("_Choice", bound=StrEnum)
_Quantity = TypeVar("_Quantity", int, float)


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """A hint with the nearest known word, or with all of them when none is near, if any."""
    words = list(known)
    near = get_close_matches(wrong[:64].lower(), words, n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    return "one of: " + ", ".join(words) if words else ""


def as_text(value: object) -> str:
    """The value, if it is text. YAML reads bare words such as 7, true or null as something else."""
    if isinstance(value, str):
        return value
    hint = "" if isinstance(value, dict | list) else "put it into quotes if you mean it as text"
    raise Malformed(value, "is not text", hint)


def parse_name(value: object) -> str:
    text = as_text(value)
    if not _NAME.fullmatch(text):
        hint = "lower-case letters, digits and hyphens, at most 63, as in branch-a"
        raise Malformed(text, "is no name", hint)
    return text


def parse_device(value: object) -> str:
    """A network interface of the kernel: at most 15 octets, and none of ours."""
    text = as_text(value)
    if len(text) > 15:
        hint = "the kernel's interface names have at most 15 characters; see `ip link`"
        raise Malformed(text, "is too long", hint)
    if not _DEVICE.fullmatch(text) or text in _RESERVED_DEVICES:
        raise Malformed(text, "is no usable interface name", "see `ip link`")
    if text.startswith(DEVICE_PREFIX):
        hint = f"Branchline makes the interfaces named {DEVICE_PREFIX}... itself"
        raise Malformed(text, "is not free for use", hint)
    return text


def parse_duration(value: object) -> int:
    """`150 ms` -> 150000: a decimal number, at most one space, and us, ms, s or min."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise Malformed(value, "is no duration", "a number and us, ms, s or min: 150 ms")
    us = Decimal(match[1]) * _US[match[2]]
    if us != int(us):
        raise Malformed(value, "is finer than a microsecond")
    return int(us)


def render_duration(us: int) -> str:
    """The text of a duration, in the largest of s, ms and us that needs no fraction."""
    unit = next(unit for unit in ("s", "ms", "us") if us % _US[unit] == 0)
    return f"{us // _US[unit]} {unit}"


def parse_rate(value: object) -> int:
    """`20 Mbit/s` -> 20000000 bit/s: a decimal number, at most one space, and the unit."""
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise Malformed(value, "is no rate", "a number and kbit/s, Mbit/s or Gbit/s: 20 Mbit/s")
    return int(Decimal(match[1]) * _BPS[match[2]])


def render_rate(bps: int) -> str:
    """The text of a rate, in the largest of Gbit/s, Mbit/s and kbit/s that needs no fraction."""
    unit = next((u for u, size in reversed(_BPS.items()) if bps % size == 0), "kbit")
    return f"{bps / _BPS[unit]:.12g} {unit}/s"


def parse_ratio(value: object) -> float:
    """`1 %` -> 0.01: a decimal number, at most one space, and a percent sign."""
    match = _RATIO.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise Malformed(value, "is no percentage", "a number and a percent sign: 1 %")
    return float(Decimal(match[1]) / 100)


def between(
    parse: Callable[[object], _Quantity], low: str, high: str
) -> Callable[[object], _Quantity]:
    """A parser of quantities that refuses what is out of these bounds, given as texts."""
    least, most = parse(low), parse(high)

    def parse_within(value: object) -> _Quantity:
        quantity = parse(value)
        if not least <= quantity <= most:
            raise Malformed(value, "is out of range", f"from {low} to {high}")
        return quantity

    return parse_within


def choice_of(words: type[_Choice]) -> Callable[[object], _Choice]:
    """A parser of one word out of an enumeration."""
    known = {word.value: word for word in words}

    def parse(value: object) -> _Choice:
        text = as_text(value)
        if text not in known:
            raise Malformed(text, "is not known here", did_you_mean(text, known))
        return known[text]

    return parse


def parse_dscp(value: object) -> int:
    """A code point, as a number 0..63 or by its name (RFC 2474, 2597, 3246, 5865, 8622)."""
    if isinstance(value, str):
        if value not in DSCP:
            raise Malformed(value, "names no DSCP", did_you_mean(value, DSCP))
        return DSCP[value]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 63:
        raise Malformed(value, "is no DSCP", "a name such as ef, or a number from 0 to 63")
    return value


def parse_ports(value: object) -> tuple[int, int]:
    """A port, 5060, or a range, 10000-20000, both ends included."""
    first = last = 0
    if isinstance(value, int) and not isinstance(value, bool):
        first = last = value
    elif isinstance(value, str) and (match := _PORTS.fullmatch(value)):
        first, last = int(match[1]), int(match[2])
    if not 1 <= first <= last <= 65535:
        raise Malformed(value, "is no port", "from 1 to 65535, or a range: 10000-20000")
    return first, last


def parse_mac(value: object) -> str:
    """The MAC address of one device, in lower case: not one of a group, nor of nobody."""
    text = as_text(value)
    if not _MAC.fullmatch(text):
        raise Malformed(text, "is no MAC address", "six octets as in 02:00:5e:10:00:01")
    if int(text[:2], 16) & 1 or text == "00:00:00:00:00:00":
        raise Malformed(text, "is the address of no single device", "see `ip neighbour`")
    return text.lower()


def parse_domain(value: object) -> str:
    """A domain, which stands for all that is below it too: two labels or more, in lower case."""
    text = as_text(value)
    if len(text) > 253 or not _DOMAIN.fullmatch(text):
        hint = "lower-case labels as in example.net; leave `*.` out, what is below belongs to it"
        raise Malformed(text, "is no domain", hint)
    return text


def parse_url(value: object) -> str:
    text = as_text(value)
    if not _URL.fullmatch(text):
        raise Malformed(text, "is no web address", "as in https://example.net/ports")
    return text


def parse_title(value: object) -> str:
    text = as_text(value)
    if not 1 <= len(text) <= MAX_TITLE or not text.isprintable():
        raise Malformed(text, "is no title", f"one line of at most {MAX_TITLE} characters")
    return text


def parse_public_key(value: object) -> str:
    """An X25519 public key as `wg pubkey` prints it: 32 octets in base64 (RFC 4648 section 4)."""
    text = as_text(value)
    if not _KEY.fullmatch(text):
        hint = "32 octets in base64, 44 characters, as `wg pubkey` prints them"
        raise Malformed(text, "is no WireGuard public key", hint)
    if text.count("A") == 43:
        raise Malformed(text, "is 32 zeros", "ask the site for its public key")
    return text


def parse_file(value: object) -> str:
    """A file in the folder of such files, or below it: see docs/CONFIGURATION.md.

    Relative only and without `..`: a configuration that comes from elsewhere must not be able to
    name other secrets of the box. The value never shows in a message: it may be a pasted key.
    """
    text = as_text(value) if not isinstance(value, dict | list) else ""
    if _PASTED_KEY.search(text):
        hint = "write the key into a file of its own, mode 0600, and give the file's name here"
        raise Malformed(HIDDEN, "is a key, and keys do not belong here", hint)
    if len(text) > 255 or not _FILE.fullmatch(text):
        hint = "a name such as hq.psk or keys/hq.psk: no leading slash or dot, no `..`, no spaces"
        raise Malformed(HIDDEN, "does not name a file in its folder", hint)
    return text
