"""The log: one JSON object a line on standard error, for journald and for people with jq.

State changes only, never ticks; a constant message plus fields; every kernel operation as the
command that a person would type. The standard library's logging does it: asyncio loads it anyway,
while structlog adds 4.8 MiB (measured beside aiohttp) to a process with a budget of 90.

    log.info("moved", extra={"class": "voice", "site": "hq"})
    {"at": "2026-01-01T00:00:00.000Z", "level": "info", "from": "appliance.supervisor.engine",
     "message": "moved", "class": "voice", "site": "hq"}
"""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import TextIO

# Levels of syslog (RFC 5424 section 6.2.1), which journald reads from "<N>" before a line.
_SYSLOG = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}

# What every record has; the rest came in as `extra`.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line. `with_priority` puts journald's "<N>" before it."""

    def __init__(self, *, with_priority: bool = False) -> None:
        super().__init__()
        self._with_priority = with_priority

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        said: dict[str, object] = {
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "from": record.name,
            "message": record.getMessage(),
        }
        said |= {name: value for name, value in vars(record).items() if name not in _OWN}
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        line = json.dumps(said, default=str, ensure_ascii=False)
        if not self._with_priority:
            return line
        return f"<{_SYSLOG.get(record.levelno, 6)}>{line}"


def set_up(*, is_verbose: bool = False, stream: TextIO | None = None) -> None:
    """Log to the stream, standard error by default. Replaces what was set up before."""
    target = stream or sys.stderr
    handler = logging.StreamHandler(target)
    handler.setFormatter(JsonFormatter(with_priority=_is_journal(target)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if is_verbose else logging.INFO)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.raiseExceptions = False  # a full disk behind the log must not fill the log


def _is_journal(stream: TextIO) -> bool:
    """Does the stream lead to journald? See `$JOURNAL_STREAM` in systemd.exec(5)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
