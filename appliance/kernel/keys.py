"""Secrets on disk: the box's WireGuard key, made here and never leaving, and preshared keys.

Nothing of a secret is ever logged, printed or put on a command line. A file that others can read
is refused, since whoever read it once can listen for ever.
"""

import contextlib
import os
import stat
from base64 import b64decode, b64encode
from binascii import Error as NotBase64Error
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

from nacl.bindings import crypto_scalarmult_base

from appliance.config.intent import Intent
from appliance.contract.ids import SiteName
from appliance.kernel.files import write_whole

KEY_SIZE = 32
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class KeyFileError(Exception):
    """A key file cannot be used. The message says what to do about it."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What the box knows itself and its peers by. `repr` shows no secret."""

    public: str  # base64, as `wg pubkey` prints it
    preshared_digests: Mapping[SiteName, str]
    private: bytes = field(repr=False)
    preshared: Mapping[str, bytes] = field(repr=False)  # by digest


def load_keys(intent: Intent, own: Path, beside: Path) -> Keys:
    """Read all keys of a box, making its private key on the first start.

    `own` is the folder of the private key, `beside` that of the preshared keys. Raises
    KeyFileError.
    """
    private = _private_key(own / intent.private_key_file)
    digests: dict[SiteName, str] = {}
    preshared: dict[str, bytes] = {}
    for peer in intent.peers:
        if peer.preshared_key_file is not None:
            key = _shared_key(beside / peer.preshared_key_file, "both sites")
            digests[peer.name] = digest(key)
            preshared[digest(key)] = key
    public = b64encode(crypto_scalarmult_base(private)).decode()
    return Keys(public, MappingProxyType(digests), private, MappingProxyType(preshared))


def load_probe_key(path: Path) -> bytes:
    """The fleet's key for authenticated probes (RFC 8762 section 4.4). Raises KeyFileError."""
    return _shared_key(path, "every site")


def digest(preshared: bytes) -> str:
    """How a plan names a preshared key without holding it."""
    return sha256(preshared).hexdigest()[:8]


def _private_key(path: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return _read_key(path)
    key = bytearray(os.urandom(KEY_SIZE))
    key[0] &= 248  # RFC 7748 section 5: what every implementation makes of a scalar
    key[31] = key[31] & 127 | 64
    try:
        write_whole(path, b64encode(key) + b"\n")
    except OSError as error:
        message = f"cannot make the key file {path}: {error.strerror}; check the folder's owner"
        raise KeyFileError(message) from error
    return bytes(key)


def _shared_key(path: Path, whom: str) -> bytes:
    try:
        return _read_key(path)
    except FileNotFoundError:
        message = f"no key file {path}: make one with `wg genpsk` and give it to {whom}"
        raise KeyFileError(message) from None


def _read_key(path: Path) -> bytes:
    """Raises FileNotFoundError, or KeyFileError for anything else that is wrong."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & _OTHERS:
                message = f"others may read {path} (mode {mode & 0o777:04o}): chmod 600 {path}"
                raise KeyFileError(message)
            text = file.read(4096)
    except FileNotFoundError:
        raise
    except OSError as error:
        message = f"cannot read the key file {path}: {error.strerror}"
        raise KeyFileError(message) from error
    try:
        key = b64decode(text.strip(), validate=True)
    except NotBase64Error:
        key = b""
    if len(key) != KEY_SIZE:
        message = f"{path} does not hold a key: it must be one line as `wg genkey` prints it"
        raise KeyFileError(message)
    return key
