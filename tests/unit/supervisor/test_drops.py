from dataclasses import replace

from appliance.contract.ids import Plane, SiteId, Slot
from appliance.kernel.fake import FakeKernel
from appliance.supervisor.drops import Drops
from tests.unit.plan import examples as ex

HQ = SiteId(3)
ONE, TWO = Plane(Slot(1), Slot(1)), Plane(Slot(2), Slot(1))


def test_each_asker_is_told_of_drops_since_it_asked_before():
    kernel = FakeKernel()
    kernel.drops["bl-up1"] = 7
    drops = Drops(kernel)
    assert drops.since_before(ex.BRANCH, "up", ONE, HQ)  # nobody knows since when
    assert not drops.since_before(ex.BRANCH, "up", ONE, HQ)
    kernel.drops["bl-up1"] = 8
    for site in (HQ, SiteId(2)):
        assert drops.since_before(ex.BRANCH, "up", ONE, site)
        assert not drops.since_before(ex.BRANCH, "up", ONE, site)
    kernel.drops["bl-up1"] = 0  # made anew
    assert drops.since_before(ex.BRANCH, "up", ONE, HQ)


def test_a_missing_shaper_tells_nothing_and_a_line_without_one_drops_nothing():
    drops = Drops(FakeKernel())
    assert drops.since_before(ex.BRANCH, "down", ONE, HQ)
    assert drops.since_before(ex.BRANCH, "down", ONE, HQ)
    assert not drops.since_before(ex.BRANCH, "down", TWO, HQ)
    bare = replace(ex.BRANCH, uplinks=ex.BRANCH.uplinks[1:])
    assert not drops.since_before(bare, "up", ONE, HQ)
