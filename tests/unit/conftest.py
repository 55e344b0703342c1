"""Outside of the lab nothing is loaded into the kernel of the machine that runs the tests."""

import pytest

from appliance.kernel import ebpf


@pytest.fixture(autouse=True)
def _no_bpf(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_command: int, _attributes: bytearray) -> int:
        raise PermissionError(1, "not outside of the lab")

    monkeypatch.setattr(ebpf, "_bpf", refuse)
