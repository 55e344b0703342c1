"""Where a core is, as the events that bring a new one there: the beginning of every file of events.

A recording is bounded, so its beginning goes some day. What a core remembers of it must not: its
intent, what carries what, and the facts.
"""

from appliance.contract.ids import ClassName, Plane, SiteName
from appliance.core.actions import DetourPlanes, MoveClass
from appliance.core.events import (
    Event,
    IntentChanged,
    PathMtuChanged,
    SteeringAdopted,
    UplinkChanged,
    UplinkProbed,
)
from appliance.core.steering import Assignment


class Context:
    """The last of each kind of event that a core remembers, and what it decided since."""

    def __init__(self) -> None:
        self._intent: IntentChanged | None = None
        self._facts: dict[object, Event] = {}
        self._assignments: dict[tuple[ClassName, SiteName], Assignment] = {}
        self._detours: dict[Plane, Plane] = {}

    def copy(self) -> "Context":
        """What another thread may read."""
        other = Context()
        other._intent = self._intent
        other._facts = self._facts.copy()
        other._assignments = self._assignments.copy()
        other._detours = self._detours.copy()
        return other

    def see(self, event: Event) -> None:
        match event:
            case UplinkChanged():
                self._facts["uplink", event.facts.slot] = event
            case UplinkProbed():
                self._facts["probed", event.slot] = event
            case PathMtuChanged():
                self._facts["mtu", event.path] = event
            case IntentChanged():
                self._intent = event
            case SteeringAdopted():
                self._assignments |= {(c, s): assigned for c, s, assigned in event.assignments}
                self._detours |= dict(event.detours)
            case _:
                pass

    def see_move(self, move: MoveClass) -> None:
        self._assignments[move.class_name, move.site] = move.after

    def see_detour(self, action: DetourPlanes) -> None:
        for plane, instead in action.detours:
            if plane == instead:
                self._detours.pop(plane, None)
            else:
                self._detours[plane] = instead

    def events(self) -> list[Event]:
        """The intent first, then what was adopted, then the facts, as a starting core gets them."""
        if self._intent is None:
            return []
        sites = {peer.name for peer in self._intent.intent.peers}
        adopted = SteeringAdopted(
            tuple((c, s, assigned) for (c, s), assigned in self._assignments.items() if s in sites),
            tuple(self._detours.items()),
        )
        return [self._intent, adopted, *self._facts.values()]
