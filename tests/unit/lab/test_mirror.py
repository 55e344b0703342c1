from pathlib import Path

import pytest

from lab.mirror import MirrorError, find_mirror

DEB822 = """\
# comment
Types: deb
URIs: https://packages.example.net/apt
Suites: stable
Components: main

Types: deb-src
URIs: http://source.example.net/debian
Suites: bookworm

Types: deb
# comment
URIs: http://security.example.net/debian-security
Suites: bookworm-security

Types: deb
URIs: http://mirror.example.net/debian
Suites: bookworm bookworm-updates
Components: main
"""


@pytest.fixture(autouse=True)
def _no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRANCHLINE_MIRROR", raising=False)


def test_deb822_sources(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/debian.sources").write_text(DEB822)
    assert find_mirror(tmp_path) == "http://mirror.example.net/debian"


@pytest.mark.parametrize(
    "line",
    [
        "deb http://mirror.example.net/debian/ trixie main contrib",
        "deb [arch=amd64 signed-by=/usr/share/keyrings/d.gpg] "
        "http://mirror.example.net/debian/ trixie main",
        "deb [ arch=amd64 ] http://mirror.example.net/debian/ trixie main # ours",
    ],
)
def test_one_line_sources(tmp_path: Path, line: str) -> None:
    text = f"# deb http://old.example.net/debian trixie main\n{line}\n"
    (tmp_path / "sources.list").write_text(text)
    assert find_mirror(tmp_path) == "http://mirror.example.net/debian/"


def test_a_disabled_source_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    text = "Types: deb\nEnabled: no\nURIs: http://a.example.net/debian\nSuites: trixie\n"
    (tmp_path / "sources.list.d/debian.sources").write_text(text)
    with pytest.raises(MirrorError, match="BRANCHLINE_MIRROR"):
        find_mirror(tmp_path)


def test_the_override_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRANCHLINE_MIRROR", "http://own.example.net/d")
    assert find_mirror(tmp_path) == "http://own.example.net/d"
