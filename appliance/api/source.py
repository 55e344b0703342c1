"""What the API needs from the supervisor. The API decides nothing and keeps nothing."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from appliance.api.feed import Subscription
from appliance.config.flow import Flow
from appliance.config.intent import Intent
from appliance.contract.decision import Classified, Flows, History, Why
from appliance.contract.ids import ClassName, SiteName
from appliance.contract.status import (
    ClassStatus,
    Health,
    PathStatus,
    Reloaded,
    Status,
    UplinkStatus,
    WarningStatus,
)

Part = Literal["uplinks", "paths", "classes", "warnings"]
Row = UplinkStatus | PathStatus | ClassStatus | WarningStatus


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Which moves to tell. None asks for all."""

    limit: int = 100  # the newest so many
    class_name: ClassName | None = None
    site: SiteName | None = None
    since: float | None = None  # seconds since 1970


@dataclass(frozen=True, slots=True)
class FlowQuery:
    """Which flows to tell. None asks for all classes."""

    limit: int = 50  # the fastest so many
    class_name: ClassName | None = None


class StatusSource(Protocol):
    """Implemented by the supervisor; called on its event loop."""

    async def status(self) -> Status:
        """Everything, as of now. Takes its time: a slice of the rows each turn of the loop."""

    def health(self) -> Health:
        """The stage of life alone: it costs nothing, however many paths there are."""

    def rows(self, part: Part) -> Iterable[Row]:
        """The rows of one part of it. On a hub they are thousands: each is made as it is taken."""

    def look_up(self, class_name: ClassName | None, site: SiteName | None) -> None:
        """Raises UnknownName for a class or a site that the configuration does not have."""

    def why(self, class_name: ClassName, site: SiteName) -> Why:
        """The candidates of a class toward a site. Raises UnknownName."""

    async def classify(self, flow: Flow) -> Classified:
        """The class of a flow that would begin now, and its carriers.

        What the name server told of its destination counts. Raises UnknownName, KernelError.
        """

    async def flows(self, query: FlowQuery) -> Flows:
        """Live flows with their rates, the fastest first. It takes a second or two."""

    async def history(self, query: HistoryQuery) -> History:
        """Moves from the recorder, the newest last. Empty when the recorder cannot be read.

        Raises DiskHangsError.
        """

    async def plan_text(self, *, dry_run: bool, candidate: Intent | None) -> tuple[str, ...]:
        """Commands: the whole plan, or (dry run) what is outstanding in the kernel.

        With a candidate: of the plan that this configuration would have. Nothing is applied.
        """

    def subscribe(self) -> Subscription:
        """Changes from now on."""

    async def reload(self) -> Reloaded:
        """Read the configuration file again. Raises ConfigError, after which the old one holds."""

    async def metrics(self) -> AsyncIterator[bytes]:
        """Prometheus text exposition format 0.0.4, in pieces: on a hub it has megabytes."""
