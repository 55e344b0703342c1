"""No spelling of a secret gets through, and what is no secret does."""

from base64 import b64encode, urlsafe_b64encode
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.telemetry.redact import Redactor, secrets_of

KEY = sha256(b"a key").digest()
BASE64 = b64encode(KEY)


@given(
    key=st.binary(min_size=32, max_size=32),
    before=st.sampled_from([b"", b"private_key: ", b'"', b"key=", b"\n", b"(", b"\xff"]),
    after=st.sampled_from([b"", b"\n", b'"', b",", b" # psk", b")"]),
)
def test_whatever_looks_like_a_key_is_removed(key: bytes, before: bytes, after: bytes) -> None:
    for spelling in (b64encode(key), urlsafe_b64encode(key), key.hex().encode()):
        redacted = Redactor().redact(before + spelling + after)
        assert spelling not in redacted
        assert redacted.startswith(before)
        assert redacted.endswith(after)


@given(
    secret=st.binary(min_size=8, max_size=40).filter(
        lambda s: s.strip() == s and not set(b"\n<>") & set(s)  # "<removed>" is ours
    ),
    text=st.binary(max_size=60),
)
def test_a_known_secret_is_removed_wherever_it_stands(secret: bytes, text: bytes) -> None:
    spellings = (secret, b64encode(secret), secret.hex().encode(), secret.hex().upper().encode())
    for spelling in spellings:
        assert secret not in Redactor([secret + b"\n"]).redact(text + spelling + text)
        assert spelling not in Redactor([secret + b"\n"]).redact(text + spelling + text)


def test_the_same_key_has_the_same_fingerprint() -> None:
    other = b64encode(sha256(b"another key").digest())
    first, second, third = Redactor().redact(b"%s %s %s" % (BASE64, other, BASE64)).split(b"> ")
    assert third.rstrip(b">") == first
    assert first != second


def test_a_private_key_in_pem_is_removed_even_when_it_is_cut_short() -> None:
    text = b"-----BEGIN EC PRIVATE KEY-----\nMHcCAQ\n"
    assert Redactor().redact(b"a " + text + b"-----END EC PRIVATE KEY----- b") == b"a <removed> b"
    assert Redactor().redact(b"a " + text) == b"a <removed>"


@pytest.mark.parametrize(
    "text",
    [
        b"ip route replace 192.168.3.0/24 table 2969567233 nhid 184549410",
        b"2001:db8:1234:5678:9abc:def0:1234:5678",
        b"a" * 43,  # no base64 of 32 octets ends like this
        b"a" * 200,
        b"/var/lib/branchline/recorder/events-00000001.jsonl/and/a/long/path/too/it/is",
    ],
)
def test_what_is_no_key_stays(text: bytes) -> None:
    assert Redactor().redact(text) == text


def test_the_secrets_of_a_box(tmp_path: Path) -> None:
    """By the configuration's word, by name, or as a single line for its owner only."""
    etc, state = tmp_path / "etc", tmp_path / "state"
    etc.mkdir()
    state.mkdir()
    config = etc / "config.yaml"
    config.write_text('probing: {key_file: stamp}\npeers: [{"preshared_key_file": "hq"}]\n')
    config.chmod(0o600)
    for path, text, mode in (
        (etc / "stamp", "named in the configuration", 0o644),
        (etc / "hq", "named too", 0o644),
        (etc / "old.psk", "called like a key", 0o644),
        (state / "wireguard.key", "the private key", 0o600),
        (state / "token", "a single private line\n", 0o600),
        (state / "lease", "private\nbut not a line\n", 0o600),
        (etc / "notes.txt", "for everybody", 0o644),
    ):
        path.write_text(text)
        path.chmod(mode)
    (etc / "directory.key").mkdir()
    (etc / "dangling.key").symlink_to(tmp_path / "nothing")
    assert sorted(secrets_of(config, state)) == [
        b"a single private line\n",
        b"called like a key",
        b"named in the configuration",
        b"named too",
        b"the private key",
    ]


def test_a_box_without_a_configuration_has_its_state_redacted(tmp_path: Path) -> None:
    (tmp_path / "wireguard.key").write_text("the private key")
    assert list(secrets_of(tmp_path / "none" / "config.yaml", tmp_path)) == [b"the private key"]
