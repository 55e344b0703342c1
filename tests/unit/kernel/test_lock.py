"""Two supervisors in one network namespace: the second refuses."""

import pytest

from appliance.kernel import lock


@pytest.fixture(autouse=True)
def another_name(monkeypatch):
    """So that a supervisor on the developer's own machine is in nobody's way."""
    monkeypatch.setattr(lock, "_NAME", "\0branchline/test")


def test_the_second_is_told_what_to_do():
    first = lock.SupervisorLock()
    with pytest.raises(lock.AlreadyRunningError, match="systemctl stop"):
        lock.SupervisorLock()
    first.close()
    lock.SupervisorLock().close()
