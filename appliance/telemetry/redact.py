"""Taking secrets out of what is shown to others. What could be a key goes, even a public one.

Two nets, one behind the other: the secrets that this box has, in every spelling, and everything
that is shaped like a key. A key is replaced by a fingerprint, so that two places that hold the
same one can still be told from two that do not.
"""

import re
import stat
from base64 import b64decode, b64encode, urlsafe_b64encode
from binascii import Error as NotBase64Error
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

REMOVED = b"<removed>"
_SECRET_OCTETS = range(8, 4097)  # shorter "secrets" would tear holes into every text
_NAMED = re.compile(r"""key_file["']?\s*:\s*["']?([^\s"',}#]+)""")  # as YAML or JSON
_SECRET_NAMES = re.compile(r".*\.(key|psk|pem|secret)(\.new)?|.*password.*")
# 32 octets in base64 (43 digits, of which the last has two bits to spare, and "="), or in hex.
_KEYS = re.compile(
    rb"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{42}[AEIMQUYcgkosw048]=?(?![A-Za-z0-9+/_=-])"
    rb"|(?<![0-9A-Fa-f])[0-9A-Fa-f]{64}(?![0-9A-Fa-f])"
)
_PEM = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*-----|\Z)", re.DOTALL)


class Redactor:
    """Replaces secrets in octets of any kind."""

    def __init__(self, secrets: Iterable[bytes] = ()) -> None:
        spellings = {spelling for secret in secrets for spelling in _spellings(secret)}
        longest_first = sorted(spellings, key=len, reverse=True)
        self._known = re.compile(b"|".join(map(re.escape, longest_first)) or rb"(?!)")

    def redact(self, octets: bytes) -> bytes:
        octets = _PEM.sub(REMOVED, octets)
        octets = self._known.sub(REMOVED, octets)
        return _KEYS.sub(lambda found: _fingerprint(found[0]), octets)


def secrets_of(config: Path, state_dir: Path) -> Iterator[bytes]:
    """What the key files of a box hold: those that the configuration names, those that are called
    like keys, and single lines that nobody else may read.

    What cannot be read is passed over: then it cannot get into a bundle either.
    """
    named = {config.parent / name for name in _NAMED.findall(_text_of(config))}
    for path in sorted({*named, *config.parent.glob("*"), *state_dir.glob("*")} - {config}):
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > _SECRET_OCTETS[-1]:
                continue
            octets = path.read_bytes()
        except OSError:
            continue
        is_private_line = not status.st_mode & 0o077 and octets.count(b"\n") <= 1
        if path in named or _SECRET_NAMES.fullmatch(path.name.lower()) or is_private_line:
            yield octets


def _text_of(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _spellings(secret: bytes) -> Iterator[bytes]:
    """A secret as it stands in its file, line by line, and as base64, hex or raw octets."""
    for text in {secret, *secret.split(b"\n")}:
        forms = {text, text.strip()}
        with suppress(NotBase64Error):
            forms.add(b64decode(text.strip(), validate=True))
        with suppress(ValueError):  # no hex, or no text
            forms.add(bytes.fromhex(text.decode()))
        for form in forms:
            if len(form) in _SECRET_OCTETS:
                yield form
                yield b64encode(form).rstrip(b"=")
                yield urlsafe_b64encode(form).rstrip(b"=")
                yield form.hex().encode()
                yield form.hex().upper().encode()


def _fingerprint(key: bytes) -> bytes:
    return b"<key %s>" % sha256(key.rstrip(b"=")).hexdigest()[:8].encode()
