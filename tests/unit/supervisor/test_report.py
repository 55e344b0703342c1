"""The state in the words of the wire."""

from appliance.core.events import UplinkChanged
from appliance.core.state import Liveness
from appliance.core.why import explain
from appliance.supervisor import report
from appliance.supervisor.report import Moment
from tests.unit.core.box import Box
from tests.unit.core.examples import HQ, VOICE, facts, intent, peer

PATH = "hq/1-1"


def _words(box: Box) -> tuple[str, str]:
    """The state of one path, as `paths` and as `why` tell it."""
    names = report.Names(box.state.intent)
    rows = report.paths(box.state, names, Moment(box.now, 0.0), 1420)
    (path,) = [row for row in rows if row.path == PATH]
    views = explain(box.state, VOICE, HQ).candidates
    (candidate,) = [report.candidate(view, names) for view in views if str(view.path) == PATH]
    return path.state, candidate.state


def test_a_path_is_told_as_what_it_is_at_each_stage_of_its_life() -> None:
    box = Box()
    assert _words(box) == ("unknown", "unknown")
    box.wait(3.0)
    assert _words(box) == ("up", "up")
    box.kill(PATH)
    assert _words(box) == ("down", "down")
    box.wait(10.0, but={PATH: None})
    box.revive(PATH)
    assert _words(box) == ("rising", "rising")
    box.wait(30.0)
    assert _words(box) == ("up", "up")


def test_a_path_whose_uplink_is_detached_is_down_whatever_answered_last() -> None:
    """A hub looks at its sites a slice at a time: the last ones' paths are up for a while yet."""
    box = Box(intent(peers=[peer(f"s{n}", n + 2) for n in range(40)] + [peer("hq", 1000)]))
    box.wait(3.0)
    before = box.state
    box.tell(UplinkChanged(facts(1, carrier=False)))
    assert box.path(PATH).liveness is Liveness.UP
    assert _words(box) == ("down", "down")
    names = report.Names(box.state.intent)
    told = report.changed_paths(before, box.state, names, Moment(box.now, 0.0), 1420)
    assert {row.path: row.state for row in told if row}[PATH] == "down"
