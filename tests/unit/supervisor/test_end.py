"""How a run that fails ends: with a sentence, or with a traceback when the fault is ours."""

from pathlib import Path

import pytest

from appliance.kernel.process import ProcessError
from appliance.supervisor import run as module
from appliance.supervisor.run import FAILED, run

GONE = OSError(19, "No such device", "eth0")


def _ends_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(_config: Path, _state: Path, _run: Path) -> int:
        raise error

    monkeypatch.setattr(module, "_run", failing)


@pytest.mark.parametrize(
    "error",
    [
        GONE,
        ExceptionGroup("tasks", [ExceptionGroup("inner", [GONE])]),
        ProcessError("nft: not finished after 10 s"),
    ],
)
def test_what_the_world_did_is_told_in_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
) -> None:
    _ends_with(error, monkeypatch)
    assert run(tmp_path / "a.yaml", tmp_path, tmp_path) == FAILED
    told = GONE if isinstance(error, ExceptionGroup) else error
    assert capsys.readouterr().err == f"branchline: {told}\n"


def test_a_run_directory_that_dhcpcd_cannot_take_is_refused_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "a.yaml", tmp_path, tmp_path / "my box") == FAILED
    assert "takes no spaces or quotes: choose another --run-dir" in capsys.readouterr().err


def test_a_fault_of_ours_leaves_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _ends_with(ExceptionGroup("tasks", [GONE, KeyError("x")]), monkeypatch)
    with pytest.raises(ExceptionGroup):
        run(tmp_path / "a.yaml", tmp_path, tmp_path)
