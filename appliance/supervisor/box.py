"""The running box: every part, joined. It holds no rule; `core` decides and `plan` renders.

Stages of life (docs/ERRORS.md): `run` ends only by cancellation or by a fault of our own. Whatever
the world does is an event, a warning, or a reason to reconcile again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from appliance import clock
from appliance.config.addressing import listen_ports, mirrored
from appliance.config.intent import Intent
from appliance.contract.ids import PathId, Slot
from appliance.core.actions import Action, EndFlows
from appliance.core.decide import initial_state
from appliance.core.events import (
    Event,
    IntentChanged,
    PathsSampled,
    SteeringAdopted,
    UplinkChanged,
    UplinkFacts,
)
from appliance.core.state import State, UplinkState
from appliance.kernel.facts import FactsReader, UnsteadyError
from appliance.kernel.kernel import Kernel, KernelError
from appliance.kernel.keys import Keys
from appliance.kernel.monitor import (
    AddressesChanged,
    LinkChanged,
    Monitor,
    ObjectsChanged,
    Resync,
    is_ours,
)
from appliance.plan.adopt import steering_from
from appliance.plan.breakout import Exits
from appliance.plan.compile import compile_plan
from appliance.plan.counters import received_counter, sent_counter
from appliance.plan.exits import exit_key, exits, flow_marks, forbidden_marks
from appliance.plan.plan import Key, Plan, Shaper
from appliance.plan.shape import Rates, rates_from, shapers
from appliance.plan.underlay import attachments
from appliance.probing.health import UplinkHealth
from appliance.probing.paths import PathProber
from appliance.probing.reflect import Reflection, site_of
from appliance.probing.side import plane_of_ssid
from appliance.probing.sockets import ProbeSocket
from appliance.services.uplinks import Link, LinkAddress, Uplinks
from appliance.stamp.reflector import Counters, Source
from appliance.supervisor import modes
from appliance.supervisor.drops import Drops
from appliance.supervisor.engine import Engine
from appliance.supervisor.flow_table import FlowTable
from appliance.supervisor.names import NameServer
from appliance.supervisor.overlaps import Overlaps
from appliance.supervisor.rates import LineRates
from appliance.supervisor.reconciler import NotInForceError, Reconciler
from appliance.supervisor.server_names import ServerNames
from appliance.supervisor.tunnels import Tunnels
from appliance.supervisor.warnings import Warnings

log = logging.getLogger(__name__)

SETTLE_S = 0.05  # changes of the kernel come in bursts: one reconciliation for all of them
REREAD_S = 0.1  # after devices or addresses changed again and again while they were read
AUDIT_S = 60.0  # how often the kernel is compared with the plan though nothing was heard
RETRY_FIRST_S, RETRY_LAST_S = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What a configuration and its secrets make of a box."""

    intent: Intent
    keys: Keys
    probe_key: bytes | None = None


class Box:
    """All parts of one box. `settings` may be replaced while it runs (`change`)."""

    def __init__(
        self, settings: Settings, kernel: Kernel, monitor: Monitor, directory: Path
    ) -> None:
        """`directory` holds what survives the supervisor, but not the boot: leases."""
        self.kernel = kernel
        self.warnings = Warnings()
        self.settings = settings = self._possible(settings)
        self._drops = Drops(kernel)
        self.jitter = clock.jitter()
        # The session clock: monotonic, told as nanoseconds since 1970, and never set again.
        epoch_ns = clock.wall_ns() - clock.monotonic_ns()
        self.prober = PathProber(
            self._happened,
            socket=ProbeSocket.outside(listen_ports(settings.intent.listen_port_base)),
            epoch_ns=epoch_ns,
            key=settings.probe_key,
            count_sent=self._count_sent,
        )
        self.reflection = Reflection(
            epoch_ns=epoch_ns, key=settings.probe_key, counters_of=self._counters_of
        )
        self._probe_key = settings.probe_key  # that the sessions have
        self.tunnels = Tunnels(self.prober, self.reflection, self._listening)
        self.reconciler = Reconciler(
            kernel,
            self._compile,
            lambda: self.engine.steering,
            self._addressed,
            lambda op: self.rates.is_outdated(op),
        )
        self.engine = Engine(
            initial_state(),
            prober=self.prober,
            steer=kernel.steer,
            end_flows=self._end_flows,
            ask_targets=self._ask_now,
            exits=self._exits,
            is_in_force=lambda: self.reconciler.is_in_force,
            on_drift=self.wake,
        )
        self._seen: Mapping[Slot, UplinkState] = self.engine.state.uplinks
        self.engine.listeners.append(self._follow)
        self.rates = LineRates(
            kernel,
            self.prober,
            shapers=self._shapers,
            is_in_force=lambda: self.reconciler.is_in_force,
            on_drift=self.wake,
            emit=lambda event: self.engine.handle(event),
            warnings=self.warnings,
        )
        self.uplinks = Uplinks(
            settings.intent.uplinks, directory, self._happened, self.jitter, self._dhcp
        )
        self._flow_table = FlowTable(kernel, self.warnings)
        self.names = NameServer(kernel, directory, self.jitter, self._unnamed)
        self.server_names = ServerNames(kernel, self._unread)
        self.health: dict[Slot, UplinkHealth] = {}
        self.absent: frozenset[str] = frozenset()  # LAN devices that are not there
        self._present: frozenset[str] = frozenset()  # devices of any kind
        self._overlaps = Overlaps(self.warnings)
        self._group: asyncio.TaskGroup | None = None
        # Marks of flows, with their masks, by the numbers of the rules that are in force.
        self._to_end: tuple[tuple[int, int], ...] = ()
        self._unwanted: tuple[tuple[int, int], ...] = ()  # by the configuration to come
        self._marked_by = settings.intent
        self._asking: dict[Slot, asyncio.Task[None]] = {}
        self._monitor = monitor
        self._facts = FactsReader()
        self._inside: frozenset[int] = frozenset()  # devices with addresses of ours, by index
        self._reread: asyncio.TimerHandle | None = None
        self._is_read = asyncio.Event()  # before, no plan knows what is there
        self._dirty = asyncio.Event()
        self._settled = asyncio.Event()
        self.in_force = asyncio.Event()  # set once the kernel holds the plan for the first time

    # -- what is wanted ------------------------------------------------------------------------

    def plan(self) -> Plan:
        """What we want to own in the kernel at this moment."""
        return self._compiler(self.settings.intent)()

    def _compile(self) -> Plan:
        """The plan for the reconciler. Only what happens from here on wants another one.

        The kernel gets the keys that it names, and no operation of another plan is on its way now.
        """
        self._dirty.clear()
        self.kernel.use_keys(self.settings.keys)
        return self.plan()

    async def plan_of(self, candidate: Intent) -> Plan:
        """The plan that an intent would have with today's facts, keys and steering.

        Of an uplink that gets another device nothing is known yet: it is planned as unattached.
        A thread compiles it: that has no slices, and for a hub takes much longer than the death of
        an uplink may go unnoticed. The loop waits for the thread now and then, not for its end.
        """
        return await asyncio.to_thread(self._compiler(candidate, is_kept=False))

    def _compiler(self, intent: Intent, *, is_kept: bool = True) -> Callable[[], Plan]:
        """Makes a plan of what is known now, whatever happens until it is called."""
        facts = self._facts_of(intent)
        keys = self.settings.keys
        return partial(
            compile_plan,
            intent,
            facts,
            self.engine.steering,
            keys.public,
            preshared=keys.preshared_digests,
            absent=self._absent_of(intent),
            rates=self.rates.rates,
            is_kept=is_kept,
        )

    def _facts_of(self, intent: Intent) -> dict[Slot, UplinkFacts]:
        state = self.engine.state
        known = {(uplink.slot, uplink.device) for uplink in self.settings.intent.uplinks}
        return {
            uplink.slot: entry.facts
            for uplink in intent.uplinks
            if (uplink.slot, uplink.device) in known
            and (entry := state.uplinks.get(uplink.slot)) is not None
            and entry.facts is not None
        }

    def _shapers(self, rates: Rates) -> dict[Key, Shaper]:
        intent = self.settings.intent
        return dict(shapers(intent, attachments(intent, self._facts_of(intent)), rates))

    def _possible(self, settings: Settings) -> Settings:
        intent = modes.possible(settings.intent, self.kernel, self.warnings)
        return settings if intent is settings.intent else replace(settings, intent=intent)

    # -- what happens --------------------------------------------------------------------------

    def _happened(self, event: Event) -> None:
        if isinstance(event, PathsSampled):  # what is our own doing comes first
            self.rates.look(clock.monotonic())
        self.engine.handle(event)

    def _follow(
        self, _now: float, event: Event, _actions: tuple[Action, ...], state: State
    ) -> None:
        """What an event means for the other parts."""
        if state.is_settled and not state.pending:
            self._settled.set()  # every site has been decided about
        if isinstance(event, UplinkChanged):
            self.wake()  # addresses and gateways are in the plan
            if (health := self.health.get(event.facts.slot)) is not None:
                health.facts_changed(event.facts)
        if state.uplinks is not self._seen:
            self._seen = state.uplinks
            if self.in_force.is_set():
                self.names.want(self.settings.intent, state.uplinks)

    def _ask_now(self, slot: Slot) -> None:
        if (health := self.health.get(slot)) is not None:
            health.ask_now()

    def _exits(self, state: State) -> Exits:
        """The ways to the internet that are there, and of which the kernel was told."""
        facts = {slot: e.facts for slot, e in state.uplinks.items() if e.facts is not None}
        return frozenset(
            (slot, family)
            for slot, family in exits(state.intent, facts)
            if self.reconciler.has_asked(exit_key(slot, family))
        )

    def _end_flows(self, action: EndFlows) -> None:
        """When the rules are those of now: by older ones its next packet would begin it again."""
        self._to_end += flow_marks(self._marked_by, action.uplink, action.classes)
        if self.reconciler.is_in_force:
            self._end_now()

    def _end_now(self) -> None:
        """A thread does it: the kernel looks through all flows that it tracks."""
        self._marked_by = self.settings.intent
        marks, self._to_end, self._unwanted = self._to_end + self._unwanted, (), ()
        if marks and self._group is not None:
            self._group.create_task(self._ending(marks), name="flows of an uplink")

    async def _ending(self, marks: tuple[tuple[int, int], ...]) -> None:
        for mark, mask in marks:
            try:
                await self.kernel.end_flows(mark, mask)
            except KernelError as error:
                log.warning("flows of a dead uplink go on", extra={"error": str(error)})

    def wake(self) -> None:
        """Reconcile soon: something changed that the plan or the kernel depends on."""
        self._dirty.set()

    def lans_are(self, present: frozenset[str]) -> None:
        """These devices exist; the LANs whose device does not are left out of the plan."""
        self._present = present
        absent = self._absent_of(self.settings.intent)
        if absent == self.absent:
            return
        for device in absent - self.absent:
            text = f"the LAN device {device} is not there: its LAN is left out until it is"
            self.warnings.warn("lan-missing", device, "warning", text)
        for device in self.absent - absent:
            self.warnings.warn("lan-missing", device, "warning", None)
        self.absent = absent
        self.wake()

    def _absent_of(self, intent: Intent) -> frozenset[str]:
        return frozenset(lan.device for lan in intent.lans) - self._present

    async def change(self, settings: Settings) -> None:
        """Bring another configuration into force, with the same traffic where it still may go.

        Raises NotInForceError, or OSError when devices cannot be read, after which the caller goes
        back to the settings before.
        """
        self.settings = settings = self._possible(settings)
        self.reconciler.want_another()  # moves wait for the plan they belong to
        kept = self._to_end
        self.engine.handle(IntentChanged(settings.intent))
        self._unwanted, self._to_end = self._to_end[len(kept) :], kept
        self.rates.configure(settings.intent)
        self.uplinks.reconfigure(settings.intent.uplinks)
        self._read_facts()
        try:
            await self.reconciler.reconcile()
        except NotInForceError:
            self._unwanted = ()
            raise
        self._end_now()
        self.names.want(settings.intent, self.engine.state.uplinks)
        self.server_names.want(settings.intent)
        self.names.tables_are(self.reconciler.ops["filter"])
        self.uplinks.release_others()
        self._use_probe_key()
        self.tunnels.follow(settings.intent)
        self._ask_targets()
        self.wake()  # whoever waits for the first plan hears of this one, and its warning ends

    def _listening(self, trouble: str | None) -> None:
        if trouble is not None:
            log.error("probes are not answered", extra={"error": trouble})
            trouble = f"the probes of other sites are not answered: {trouble}"
        self.warnings.warn("probes-unanswered", "reflector", "critical", trouble)

    def _dhcp(self, device: str, trouble: str | None) -> None:
        if trouble is not None:
            trouble = f"DHCP on {device}: {trouble}"
        self.warnings.warn("dhcp-client", device, "warning", trouble)

    def _unnamed(self, trouble: str | None) -> None:
        if trouble is not None:
            trouble = f"hosts of LANs are told no names: {trouble}"
        self.warnings.warn("names-unanswered", "dns", "warning", trouble)

    def _unread(self, trouble: str | None) -> None:
        if trouble is not None:
            trouble = f"flows are not known by the names that they call: {trouble}"
        self.warnings.warn("server-names", "flows", "warning", trouble)

    def _use_probe_key(self) -> None:
        if self._probe_key != self.settings.probe_key:
            self._probe_key = self.settings.probe_key
            self.tunnels.use_key(self._probe_key)

    # -- running -------------------------------------------------------------------------------

    async def adopt(self) -> None:
        """Begin with what the kernel does already. Raises KernelError."""
        observed = await self.kernel.observe(())
        found = steering_from(self.settings.intent, observed)
        self.rates.adopt(rates_from(self.settings.intent, observed))
        self.rates.configure(self.settings.intent)
        self.engine.handle(IntentChanged(self.settings.intent))
        self.engine.handle(
            SteeringAdopted(
                tuple((c, s, assigned) for (c, s), assigned in found.assignments.items()),
                tuple(found.detours.items()),
                found.gateway,
            )
        )
        self._to_end += forbidden_marks(self.settings.intent)

    async def run(self) -> None:
        """Keep everything going until cancelled. The kernel is left as it is."""
        self._refresh()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch(), name="netlink")
                group.create_task(self.uplinks.run(), name="uplinks")
                group.create_task(self._keep_in_force(), name="reconciler")
                group.create_task(self.rates.run(), name="rates")
                group.create_task(self._serve_names(), name="names")
                group.create_task(self._read_names(), name="server names")
                group.create_task(self._flow_table.run(), name="flow table")
                self._group = group
                self._ask_targets()
                await asyncio.Future()
        finally:
            if self._reread is not None:
                self._reread.cancel()
            self.engine.close()
            self.tunnels.close()
            self._monitor.close()
            self._facts.close()

    async def _serve_names(self) -> None:
        """Once its sets are there."""
        await self.in_force.wait()
        self.names.want(self.settings.intent, self.engine.state.uplinks)
        await self.names.run()

    async def _read_names(self) -> None:
        """Once the rules that copy packets are there."""
        await self.in_force.wait()
        self.server_names.want(self.settings.intent)
        await self.server_names.run()

    async def _watch(self) -> None:
        """Follow what the kernel says of devices, addresses and our own objects."""
        while True:
            is_stale = False
            for notice in await self._monitor.read():
                match notice:
                    case LinkChanged():
                        self._link_changed(notice)
                        is_stale = True
                    case AddressesChanged(ifindex):
                        if ifindex in self._inside:
                            self.wake()
                        is_stale = True
                    case ObjectsChanged():
                        self.wake()
                    case Resync():
                        log.warning("netlink notices were lost, reading everything anew")
                        is_stale = True
                        self.wake()
            if is_stale:
                self._refresh()

    def _link_changed(self, notice: LinkChanged) -> None:
        """Take note of the carrier before anything else: the uplink's paths go with it.

        Of a device inside somebody may have taken away what we put there. Our own changes are told
        here, too, and cost one more look at the kernel.
        """
        if self._is_inside(notice.name):
            self.wake()
        elif notice.exists:
            has_carrier = notice.is_up and notice.has_carrier
            self.uplinks.link_changed(Link(notice.ifindex, notice.name, has_carrier))
        else:
            self.uplinks.link_gone(notice.ifindex)

    def _is_inside(self, device: str) -> bool:
        """Ours, or a LAN's. What is on an uplink is a fact, and wakes when it changes."""
        return is_ours(device) or device in {lan.device for lan in self.settings.intent.lans}

    def _read_facts(self) -> None:
        """Read all devices and their addresses, and tell those who follow them."""
        devices = self._facts.read()
        self._inside = frozenset(d.ifindex for d in devices.values() if self._is_inside(d.name))
        self.uplinks.resync(
            [Link(d.ifindex, d.name, d.is_up and d.has_carrier) for d in devices.values()],
            [LinkAddress(d.ifindex, a) for d in devices.values() for a in d.addresses],
        )
        self.lans_are(frozenset(devices))
        addresses = {name: device.addresses for name, device in devices.items()}
        self._overlaps.follow(self.settings.intent, addresses)
        self._is_read.set()

    def _refresh(self) -> None:
        """Read all devices, or, while that cannot be done, try again in a moment.

        They change too fast for it, or the kernel does not answer.
        """
        if self._reread is not None:
            self._reread.cancel()
            self._reread = None
        try:
            self._read_facts()
        except (UnsteadyError, OSError) as error:
            log.warning("devices are read again", extra={"error": str(error)})
            self._reread = asyncio.get_running_loop().call_later(REREAD_S, self._refresh)

    async def _addressed(self) -> bool:
        """Take note of addresses that we set ourselves. Is the plan another one for them?"""
        before = [entry.facts for entry in self.engine.state.uplinks.values()]
        self._refresh()
        if [entry.facts for entry in self.engine.state.uplinks.values()] == before:
            return False
        if self.engine.state.pending:  # a plan among a hub's thousand decisions is soon stale
            self._settled.clear()
            await self._settled.wait()
        return True

    def _ask_targets(self) -> None:
        """Ask the targets of the uplinks that there are now; who is asked already goes on."""
        if self._group is None:
            return
        wanted = {uplink.slot: uplink for uplink in self.settings.intent.uplinks}
        for slot, health in tuple(self.health.items()):
            if slot not in wanted or not health.use(wanted[slot]):
                self._asking.pop(slot).cancel()
                del self.health[slot]
        for uplink in wanted.values():
            if uplink.slot in self.health:
                continue
            health = UplinkHealth(uplink, self._happened, self.jitter)
            self.health[uplink.slot] = health
            if (entry := self.engine.state.uplinks.get(uplink.slot)) and entry.facts:
                health.facts_changed(entry.facts)
            name = f"targets of {uplink.name}"
            self._asking[uplink.slot] = self._group.create_task(health.run(), name=name)

    async def _keep_in_force(self) -> None:
        """Reconcile whenever there is reason to, and now and then without one."""
        # What is adopted and known first, so that a restart does nothing.
        await self._settled.wait()
        await self._is_read.wait()
        retry_s = RETRY_FIRST_S
        while True:
            wait_s = AUDIT_S
            settings = self.settings
            try:
                await self.reconciler.reconcile()
                self.names.tables_are(self.reconciler.ops["filter"])
                self._end_now()
                if self._dirty.is_set():
                    continue  # a new address wants its routes before anybody probes through them
                retry_s = RETRY_FIRST_S
                self.warnings.warn("plan-not-in-force", "kernel", "critical", None)
                if self.settings is settings:  # or it may be the plan before a change
                    self.uplinks.release_others()
                self.in_force.set()
                await asyncio.sleep(0)  # it is told before a hub's thousands of sessions are opened
                if self.settings is settings:
                    self._use_probe_key()
                    self.tunnels.follow(settings.intent)
            except NotInForceError as error:
                log.error("the plan is not in force", extra={"error": str(error)})
                text = f"what the kernel does is not what was decided: {error}"
                self.warnings.warn("plan-not-in-force", "kernel", "critical", text)
                wait_s, retry_s = retry_s, min(2 * retry_s, RETRY_LAST_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._dirty.wait()
            await asyncio.sleep(SETTLE_S)

    # -- real traffic --------------------------------------------------------------------------

    def _count_sent(self, path: PathId) -> int | None:
        peer = self.settings.intent.peer(path.site)
        if peer is None:
            return None
        intent = self.settings.intent
        if self._drops.since_before(intent, "up", path.plane, peer.site_id):
            return None
        if modes.are_counted_apart(path, intent, self.engine.steering):
            return None
        return self.kernel.read_counters((sent_counter(path.plane, peer.site_id),))[0]

    def _counters_of(self, source: Source, ssid: int) -> Counters | None:
        """Packets from and to the far end of a session, for its Direct Measurement TLV."""
        site = site_of(source)
        plane = mirrored(plane_of_ssid(ssid))
        if self._drops.since_before(self.settings.intent, "down", plane, site):
            return None
        received, sent = self.kernel.read_counters(
            (received_counter(plane, site), sent_counter(plane, site))
        )
        return None if received is None or sent is None else (received, sent)
