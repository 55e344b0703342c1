from appliance.kernel.fake import FakeKernel
from appliance.supervisor.modes import are_counted_apart, possible
from appliance.supervisor.warnings import Warnings
from tests.unit.plan import examples as ex

PLANES = [(x, y) for x in (1, 2) for y in (1, 2)]


def test_a_kernel_that_cannot_is_warned_of_and_the_class_goes_single() -> None:
    kernel, warnings = FakeKernel(), Warnings()
    assert possible(ex.TWICE, kernel, warnings) is ex.TWICE
    kernel.trouble = "no BPF on this kernel"
    assert possible(ex.TWICE, kernel, warnings) == ex.BRANCH
    (warning,) = warnings.standing
    assert (warning.code, warning.severity) == ("duplicate-unavailable", "warning")
    assert warning.text == (
        "the kernel cannot send packets twice (no BPF on this kernel): voice in mode single instead"
    )
    assert possible(ex.BRANCH, kernel, warnings) is ex.BRANCH
    assert not warnings.standing


def test_a_kernel_that_cannot_bond_is_warned_of_and_the_class_is_shared() -> None:
    kernel, warnings = FakeKernel(), Warnings()
    kernel.trouble = "no matter here"
    assert possible(ex.BONDED, kernel, warnings) is ex.BONDED
    assert not warnings.standing
    kernel.bond_trouble = "no BPF on this kernel"
    assert possible(ex.BONDED, kernel, warnings) == ex.BRANCH
    (warning,) = warnings.standing
    assert (warning.code, warning.severity) == ("bond-unavailable", "warning")
    assert warning.text == (
        "the kernel cannot spread one flow over several lines (no BPF on this kernel): "
        "bulk in mode share instead"
    )
    kernel.bond_trouble = None
    assert possible(ex.BONDED, kernel, warnings) is ex.BONDED
    assert not warnings.standing


def test_only_paths_with_packets_of_which_there_are_two_are_told() -> None:
    found = [p for p in PLANES if are_counted_apart(ex.path("hq", *p), ex.TWICE, ex.TWICE_STEERING)]
    assert found == [(1, 1), (2, 2)]
    assert not are_counted_apart(ex.path("hq", 1, 1), ex.BRANCH, ex.TWICE_STEERING)
    assert not are_counted_apart(ex.path("hq", 1, 1), ex.TWICE, ex.BRANCH_STEERING)


def test_only_the_paths_of_a_bond_are_told() -> None:
    paths = [ex.path("hq", *p) for p in PLANES]
    found = [p for p in paths if are_counted_apart(p, ex.BONDED, ex.BONDED_STEERING)]
    assert found == [ex.path("hq", 1, 1), ex.path("hq", 2, 2)]
    assert not any(are_counted_apart(p, ex.BRANCH, ex.BONDED_STEERING) for p in paths)
    assert not are_counted_apart(ex.path("branch-b", 1, 1), ex.BONDED, ex.BONDED_STEERING)
