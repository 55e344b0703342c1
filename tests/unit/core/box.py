"""A box by itself: events in, actions out, and no lines. For transcripts of single decisions."""

from collections.abc import Iterable

from appliance.config.intent import Intent, paths
from appliance.contract.ids import INTERNET, ClassName, PathId, SiteName
from appliance.core.actions import Action, MoveClass, RaiseWarning, SetProbeInterval, VerifyPath
from appliance.core.decide import decide, initial_state, next_deadline
from appliance.core.events import (
    AnswerReturned,
    DeadlinePassed,
    Event,
    IntentChanged,
    PathsSampled,
    ProbeOverdue,
    SteeringAdopted,
    UplinkChanged,
)
from appliance.core.state import PathState
from appliance.stamp.sample import Sample
from tests.unit.core.examples import HQ, VOICE, about_sites, facts, intent, path

GOOD = Sample(
    sent=5,
    answered=5,
    delay_us=20_000,
    delay_min_us=19_500,
    delay_max_us=20_500,
    jitter_forward_us=200,
    jitter_backward_us=200,
    span_us=100_000,
)
SLOW = GOOD._replace(delay_us=100_000, delay_min_us=99_000, delay_max_us=101_000)
LOSSY = GOOD._replace(sent=40, answered=36, lost=4, lost_forward=4)


class Box:
    """Times are seconds since the first event. Told is what concerns sites (`about_sites`)."""

    def __init__(
        self,
        intended: Intent | None = None,
        *,
        attached: Iterable[int] | None = None,
        adopted: SteeringAdopted | None = None,
    ) -> None:
        intended = intended or intent()
        self.state = initial_state()
        self.now = 0.0
        self.paths = paths(intended)
        self.actions: list[tuple[float, Action]] = []
        self.tell(IntentChanged(intended))
        if adopted is not None:
            self.tell(adopted)
        up = {u.slot for u in intended.uplinks} if attached is None else set(attached)
        for uplink in intended.uplinks:
            self.tell(UplinkChanged(facts(uplink.slot, carrier=uplink.slot in up)))

    def tell(self, event: Event) -> list[Action]:
        self.state, actions = decide(self.state, event, self.now)
        told = about_sites(actions)
        self.actions += [(self.now, action) for action in told]
        return told

    def wait(
        self, seconds: float, sample: Sample | None = GOOD, *, but: dict | None = None
    ) -> None:
        """Let time pass. Every path that answers is sampled each second; `but` names exceptions.

        `but` maps "hq/1-1" to another sample, or to None for silence.
        """
        end = self.now + seconds
        while self.now < end - 1e-9:
            until = min(end, self.now + 1.0)
            while (due := next_deadline(self.state)) is not None and due <= until:
                self.now = max(self.now, due)
                self.tell(DeadlinePassed())
            self.now = until
            told = [(p, (but or {}).get(str(p), sample)) for p in self.paths]
            self.tell(PathsSampled(tuple((p, s) for p, s in told if s is not None)))

    def sample(self, name: str, sample: Sample, times: int = 1) -> list[Action]:
        """Some samples of one path, 0.1 s apart."""
        actions = []
        for _ in range(times):
            self.now += 0.1
            actions += self.tell(PathsSampled(((named(name), sample),)))
        return actions

    def kill(self, *names: str) -> list[Action]:
        """Paths go silent: answers are missing until nothing is believed of them any more."""
        actions = []
        for count in range(1, 8):
            self.now += 0.01
            for name in names:
                actions += self.tell(ProbeOverdue(named(name), 0.024, count, 0.01))
        return actions

    def revive(self, *names: str) -> list[Action]:
        actions = []
        for name in names:
            actions += self.tell(AnswerReturned(named(name), 1))
        return actions

    def carrier(self, class_name: ClassName = VOICE, site: SiteName = HQ) -> str:
        """The planes that carry a class: "1-1", "1-1 2-1", or "-" for none."""
        held = self.state.sites[site].classes.get(class_name)
        carriers = held.assignment.carriers if held else ()
        return " ".join(str(c.path.plane) for c in carriers) or "-"

    def reason(self, class_name: ClassName = VOICE, site: SiteName = HQ) -> str:
        return self.state.sites[site].classes[class_name].reason

    def path(self, name: str) -> PathState:
        found = named(name)
        return self.state.sites[found.site].paths[found.plane]

    def moves(self, class_name: ClassName = VOICE) -> list[str]:
        """The moves of a class: ["initial 1-1", "path-down 2-1"]."""
        return [
            f"{a.cause.value} {' '.join(str(c.path.plane) for c in a.after.carriers) or '-'}"
            for _, a in self.actions
            if isinstance(a, MoveClass) and a.class_name == class_name
        ]

    def paces(self) -> dict[str, float]:
        return {str(p): self.state.sites[p.site].paths[p.plane].interval_s for p in self.paths}

    @property
    def warnings(self) -> dict[str, str]:
        return {
            f"{code} {who}": w.text
            for (code, who), w in self.state.warnings.items()
            if not who.endswith(INTERNET)
        }


def named(name: str) -> PathId:
    site, _, plane = name.partition("/")
    local, _, remote = plane.partition("-")
    return path(site, int(local), int(remote))


def kinds(actions: Iterable[Action]) -> list[str]:
    """What was asked for, without the pace of probes."""
    return [type(a).__name__ for a in actions if not isinstance(a, SetProbeInterval)]


__all__ = ["GOOD", "LOSSY", "SLOW", "Box", "RaiseWarning", "VerifyPath", "kinds", "named"]
