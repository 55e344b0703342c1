"""The parts of the supervisor that look outside of the tunnels, and nothing else, on one machine.

`python3 -m tests.lab.follow_uplinks RUN_DIRECTORY UPLINK...` prints a line of JSON for every event
that these parts tell: the stories of lab_uplinks.py read them. An uplink is a JSON object.
"""

import asyncio
import json
import logging
import sys
from ipaddress import ip_address, ip_interface
from pathlib import Path

from appliance import clock
from appliance.config.intent import Method, Target, TargetKind, Uplink
from appliance.contract.ids import Label, Slot, UplinkName
from appliance.core.events import UplinkChanged, UplinkProbed
from appliance.kernel.facts import FactsReader
from appliance.kernel.monitor import LinkChanged, Monitor
from appliance.probing.health import UplinkHealth
from appliance.services.dhcp import make_leases_directory
from appliance.services.uplinks import Link, LinkAddress, Uplinks


def uplink_of(words: dict[str, object]) -> Uplink:
    return Uplink(
        name=UplinkName(str(words["device"])),
        slot=Slot(int(str(words["slot"]))),
        label=Label("x"),
        device=str(words["device"]),
        method=Method(str(words["method"])),
        addresses=tuple(ip_interface(text) for text in words.get("addresses", ())),  # type: ignore[attr-defined]
        gateways=tuple(ip_address(text) for text in words.get("gateways", ())),  # type: ignore[attr-defined]
        metered=bool(words.get("metered", False)),
        targets=tuple(target_of(*target) for target in words.get("targets", ())),  # type: ignore[attr-defined]
        quorum=int(str(words.get("quorum", 1))),
    )


def target_of(kind: str, address: str, port: int | None = None, query: str | None = None) -> Target:
    return Target(TargetKind(kind), ip_address(address), port, query)


def tell(event: str, slot: int, **fields: object) -> None:
    print(json.dumps({"event": event, "slot": slot, **fields}), flush=True)


class Follower:
    """As the supervisor joins them."""

    def __init__(self, directory: Path, uplinks: list[Uplink]) -> None:
        jitter = clock.jitter()
        self.uplinks = Uplinks(uplinks, directory, self.changed, jitter)
        self.health = {u.slot: UplinkHealth(u, self.probed, jitter) for u in uplinks}
        self.reader = FactsReader()
        self.monitor = Monitor()

    def changed(self, event: UplinkChanged) -> None:
        facts = event.facts
        tell(
            "facts",
            facts.slot,
            device=facts.has_device,
            carrier=facts.has_carrier,
            addresses=[str(a) for a in facts.addresses],
            gateways=[str(g) for g in facts.gateways],
        )
        self.health[facts.slot].facts_changed(facts)

    def probed(self, event: UplinkProbed) -> None:
        tell(
            "probed",
            event.slot,
            healthy=event.is_healthy,
            answered=event.answered,
            asked=event.asked,
            evidence=event.evidence,
        )

    def look(self) -> None:
        devices = self.reader.read().values()
        self.uplinks.resync(
            [Link(d.ifindex, d.name, d.is_up and d.has_carrier) for d in devices],
            [LinkAddress(d.ifindex, a) for d in devices for a in d.addresses],
        )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self.look()
            group.create_task(self.uplinks.run())
            for health in self.health.values():
                group.create_task(health.run())
            while True:
                for notice in await self.monitor.read():
                    if isinstance(notice, LinkChanged) and notice.exists:
                        carrier = notice.is_up and notice.has_carrier
                        self.uplinks.link_changed(Link(notice.ifindex, notice.name, carrier))
                self.look()


def main() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="# %(message)s %(args)s")
    handler = logging.getLogger().handlers[0]
    handler.setFormatter(_Formatter())
    directory = Path(sys.argv[1])
    make_leases_directory(directory)
    uplinks = [uplink_of(json.loads(text)) for text in sys.argv[2:]]
    asyncio.run(Follower(directory, uplinks).run())


class _Formatter(logging.Formatter):
    """Our message and its fields; not JSON, so that no story takes it for an event."""

    def format(self, record: logging.LogRecord) -> str:
        usual = vars(logging.makeLogRecord({}))
        fields = {k: v for k, v in vars(record).items() if k not in usual and k != "message"}
        return f"# {record.getMessage()} {fields}"


if __name__ == "__main__":
    main()
