"""Find the Debian mirror that this machine is configured to use; none is built in."""

import os
from collections.abc import Iterator
from pathlib import Path

OVERRIDE = "BRANCHLINE_MIRROR"


class MirrorError(Exception):
    """No Debian mirror is configured. The text says what to do."""


def find_mirror(sources: Path = Path("/etc/apt")) -> str:
    """The URI of $BRANCHLINE_MIRROR or of apt's sources. Raises MirrorError."""
    override = os.environ.get(OVERRIDE)
    if override:
        return override
    files = [sources / "sources.list", *sorted((sources / "sources.list.d").glob("*"))]
    for path in files:
        if not path.is_file():
            continue
        parse = _parse_deb822 if path.suffix == ".sources" else _parse_one_line
        for uri, suite in parse(path.read_text()):
            if _is_debian_release(uri, suite):
                return uri
    message = (
        f"no Debian mirror in {sources}; set {OVERRIDE} to the URI of one, "
        "as it would stand in sources.list"
    )
    raise MirrorError(message)


def _is_debian_release(uri: str, suite: str) -> bool:
    """A mirror of the whole distribution: by convention its path ends with "debian"."""
    return uri.rstrip("/").endswith("debian") and "/" not in suite and "-" not in suite


def _parse_deb822(text: str) -> Iterator[tuple[str, str]]:
    for stanza in text.split("\n\n"):
        fields: dict[str, str] = {}
        for line in stanza.splitlines():
            name, colon, value = line.partition(":")
            if colon and not line.startswith(("#", " ")):
                fields[name.lower()] = value.strip()
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes") != "no":
            for uri in fields.get("uris", "").split():
                for suite in fields.get("suites", "").split():
                    yield uri, suite


def _parse_one_line(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if words[:1] != ["deb"]:
            continue
        words = words[1:]
        if words and words[0].startswith("["):
            while words and not words[0].endswith("]"):
                words = words[1:]
            words = words[1:]
        if len(words) >= 2:
            yield words[0], words[1]
