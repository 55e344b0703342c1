from appliance.kernel.fake import FakeKernel
from appliance.supervisor.copies import are_on, possible
from appliance.supervisor.warnings import Warnings
from tests.unit.plan import examples as ex


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


def test_only_paths_with_packets_of_which_there_are_two_are_told() -> None:
    planes = [(x, y) for x in (1, 2) for y in (1, 2)]
    found = [p for p in planes if are_on(ex.path("hq", *p), ex.TWICE, ex.TWICE_STEERING)]
    assert found == [(1, 1), (2, 2)]
    assert not are_on(ex.path("hq", 1, 1), ex.BRANCH, ex.TWICE_STEERING)
    assert not are_on(ex.path("hq", 1, 1), ex.TWICE, ex.BRANCH_STEERING)
