"""A state being advanced by one event: copies what changes, once, and shares the rest.

It knows nothing of rules. `decide` opens one, works on it and freezes it; it never leaves the
package. Everything reachable from the state it was opened on stays as it was.
"""

import math
from collections.abc import Iterable, Mapping

from appliance.config.intent import Intent
from appliance.contract.ids import ClassName, PathId, Plane, SiteName, Slot
from appliance.core.actions import Action, ClearWarning, RaiseWarning, Severity
from appliance.core.layout import Layout, Shape
from appliance.core.state import (
    ClassState,
    PathState,
    SiteState,
    State,
    UplinkState,
    Warned,
)


class SiteDraft:
    """One site's part: `paths` may be written to, the rest is assigned anew."""

    __slots__ = ("carrying", "classes", "name", "paths", "review_at", "shape")

    def __init__(self, name: SiteName, shape: Shape, entry: SiteState) -> None:
        self.name = name
        self.shape = shape
        self.paths: dict[Plane, PathState] = dict(entry.paths)
        self.classes: Mapping[ClassName, ClassState] = entry.classes
        self.carrying = entry.carrying
        self.review_at = entry.review_at

    def freeze(self) -> SiteState:
        return SiteState(self.paths, self.classes, self.carrying, self.review_at)


class Draft:
    """The next state in the making, and the actions so far."""

    def __init__(self, state: State, now: float) -> None:
        self.now = max(now, state.now)  # a clock that goes back would be a bug of the caller's
        self.intent: Intent = state.intent
        self.sites: Mapping[SiteName, SiteState] = state.sites
        self.layout: Layout = state.layout
        self.actions: list[Action] = []
        self._uplinks: Mapping[Slot, UplinkState] = state.uplinks
        self._usable: frozenset[Slot] | None = None
        self.detours: Mapping[Plane, Plane] = state.detours
        self.warnings: Mapping[tuple[str, str], Warned] = state.warnings
        self._changed_warnings: dict[tuple[str, str], Warned] | None = None
        self.pending = state.pending
        self.review_at = state.review_at
        self.settle_at = state.settle_at
        self.is_settled = state.is_settled
        self.forgiven_at = state.forgiven_at
        self.boosts = state.boosts
        self.bursts = state.bursts
        self.internet = state.internet
        self.is_exit_stale = False  # something that ways to the internet depend on has changed
        self._open: dict[SiteName, SiteDraft] = {}

    def lay_out(self, intent: Intent, layout: Layout, sites: Mapping[SiteName, SiteState]) -> None:
        """Start over with other sites. To be called before any of them is opened."""
        self.intent, self.layout, self.sites = intent, layout, sites

    def site(self, name: SiteName) -> SiteDraft | None:
        """Open a site for change. None when the intent has no such peer (any more)."""
        draft = self._open.get(name)
        if draft is None:
            entry = self.sites.get(name)
            if entry is None:
                return None
            draft = self._open[name] = SiteDraft(name, self.layout.shapes[name], entry)
        return draft

    def find(self, path: PathId) -> tuple[SiteDraft, PathState] | None:
        """A path with its site, or None when the intent has none such."""
        site = self.site(path.site)
        if site is None:
            return None
        state = site.paths.get(path.plane)
        return None if state is None else (site, state)

    def paths(self, name: SiteName) -> Mapping[Plane, PathState]:
        """The paths of a site, for reading."""
        draft = self._open.get(name)
        return self.sites[name].paths if draft is None else draft.paths

    def classes(self, name: SiteName) -> Mapping[ClassName, ClassState]:
        """What carries classes to a site, for reading."""
        draft = self._open.get(name)
        return self.sites[name].classes if draft is None else draft.classes

    @property
    def uplinks(self) -> Mapping[Slot, UplinkState]:
        return self._uplinks

    @uplinks.setter
    def uplinks(self, uplinks: Mapping[Slot, UplinkState]) -> None:
        self._uplinks = uplinks
        self._usable = None

    @property
    def usable(self) -> frozenset[Slot]:
        """The local uplinks that work."""
        if self._usable is None:
            self._usable = frozenset([s for s, u in self._uplinks.items() if u.is_usable])
        return self._usable

    def put_uplink(self, slot: Slot, uplink: UplinkState) -> None:
        self.uplinks = {**self._uplinks, slot: uplink}

    def is_usable(self, slot: Slot) -> bool:
        """Does a local uplink work?"""
        return slot in self.usable

    def carrying(self) -> Iterable[tuple[SiteName, frozenset[Plane]]]:
        """Which planes carry something, by site."""
        for name, entry in self.sites.items():
            draft = self._open.get(name)
            yield name, entry.carrying if draft is None else draft.carrying

    def warn(self, code: str, subject: str, severity: Severity, text: str) -> None:
        """Raise a warning, unless the very same stands already."""
        before = self.warnings.get((code, subject))
        if before and before.severity is severity and before.text == text:
            return
        since = before.since if before else self.now
        self._own_warnings()[code, subject] = Warned(severity, text, since)
        self.actions.append(RaiseWarning(code, subject, severity, text))

    def clear(self, code: str, subject: str) -> None:
        """Clear a warning, if it stands."""
        if (code, subject) in self.warnings:
            del self._own_warnings()[code, subject]
            self.actions.append(ClearWarning(code, subject))

    def _own_warnings(self) -> dict[tuple[str, str], Warned]:
        """The warnings to be changed: copied once, for a hub at its start has one for each site."""
        if self._changed_warnings is None:
            self.warnings = self._changed_warnings = dict(self.warnings)
        return self._changed_warnings

    def freeze(self) -> State:
        """The next state."""
        sites = self.sites
        if self._open:
            review_at = min([d.review_at for d in self._open.values()])
            self.review_at = min(self.review_at, review_at)
            sites = dict(sites)
            for name, draft in self._open.items():
                sites[name] = draft.freeze()
        return State(
            self.intent,
            self.layout,
            sites,
            self.uplinks,
            self.detours,
            self.warnings,
            self.pending,
            self.review_at,
            self.settle_at,
            self.is_settled,
            self.forgiven_at,
            self.boosts,
            self.bursts,
            self.now,
            self.internet,
        )

    def earliest_review(self) -> float:
        """When the first of all sites wants to be looked at again."""
        return min(
            [
                (self._open[name].review_at if name in self._open else entry.review_at)
                for name, entry in self.sites.items()
            ],
            default=math.inf,
        )
