"""The one registry of what the supervisor warns of by itself, beside what the core warns of.

A warning stands from when it is raised until it is ended. Whoever shows warnings listens here.
"""

from collections.abc import Callable

from appliance import clock
from appliance.contract.status import WarningStatus
from appliance.contract.wire import SeverityName


class Warnings:
    """Warnings by code and subject. What to do about each: docs/OPERATIONS.md."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[], None]] = []  # called after each change
        self._standing: dict[tuple[str, str], WarningStatus] = {}

    @property
    def standing(self) -> tuple[WarningStatus, ...]:
        """Those that there are now, the oldest first."""
        return tuple(self._standing.values())

    def warn(self, code: str, subject: str, severity: SeverityName, text: str | None) -> None:
        """Raise a warning, or end it (text None). The very same again changes nothing."""
        before = self._standing.get((code, subject))
        if text == (before and before.text):
            return
        if text is None:
            del self._standing[code, subject]
        else:
            since = before.since if before else clock.wall_ns() / 1e9
            self._standing[code, subject] = WarningStatus(code, subject, severity, text, since)
        for listener in self.listeners:
            listener()
