"""Keys are made once, kept from others, and never shown."""

from base64 import b64encode
from dataclasses import replace

import pytest
from nacl.public import PrivateKey

from appliance.kernel.keys import KeyFileError, digest, load_keys, load_probe_key
from tests.unit.plan import examples as ex

NOBODY = replace(ex.BRANCH, peers=())


def write(path, content, mode=0o600):
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_the_private_key_is_made_on_the_first_start_and_kept(tmp_path):
    made = load_keys(NOBODY, tmp_path, tmp_path)
    file = tmp_path / NOBODY.private_key_file
    assert file.stat().st_mode & 0o777 == 0o600
    assert load_keys(NOBODY, tmp_path, tmp_path) == made
    assert made.public == b64encode(bytes(PrivateKey(made.private).public_key)).decode()
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


def test_two_boxes_have_two_keys(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a, b = (load_keys(NOBODY, tmp_path / x, tmp_path) for x in "ab")
    assert a.public != b.public


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_can_read_is_refused_with_what_to_do(tmp_path, mode):
    write(tmp_path / NOBODY.private_key_file, b64encode(bytes(32)), mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_keys(NOBODY, tmp_path, tmp_path)


@pytest.mark.parametrize("content", [b"", b"no key\n", b64encode(bytes(31)), b"\xff" * 44])
def test_what_is_no_key_is_refused(tmp_path, content):
    write(tmp_path / NOBODY.private_key_file, content)
    with pytest.raises(KeyFileError, match="wg genkey"):
        load_keys(NOBODY, tmp_path, tmp_path)


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(KeyFileError, match="cannot make"):
        load_keys(NOBODY, tmp_path / "nowhere", tmp_path)


def test_a_draft_of_an_interrupted_start_does_no_harm(tmp_path):
    write(tmp_path / f".{NOBODY.private_key_file}.new", b"half")
    assert load_keys(NOBODY, tmp_path, tmp_path).public


def test_preshared_keys_are_known_by_digest(tmp_path):
    secret = bytes(range(32))
    write(tmp_path / "b.psk", b64encode(secret) + b"\n")
    keys = load_keys(ex.BRANCH, tmp_path, tmp_path)
    assert keys.preshared_digests == {ex.BRANCH_B: digest(secret)}
    assert keys.preshared[digest(secret)] == secret
    assert len(digest(secret)) == 8


def test_a_missing_preshared_key_is_said(tmp_path):
    with pytest.raises(KeyFileError, match=r"wg genpsk. and give it to both sites"):
        load_keys(ex.BRANCH, tmp_path, tmp_path)
    with pytest.raises(KeyFileError, match=r"wg genpsk. and give it to every site"):
        load_probe_key(tmp_path / "stamp.key")


def test_nothing_secret_is_shown(tmp_path):
    write(tmp_path / "b.psk", b64encode(bytes(range(32))))
    keys = load_keys(ex.BRANCH, tmp_path, tmp_path)
    for secret in (keys.private, *keys.preshared.values()):
        assert repr(secret) not in repr(keys)
        assert b64encode(secret).decode() not in repr(keys)
