"""What modes `duplicate` and `bond` mean for parts of a box that neither decide nor send."""

from appliance.config.intent import Intent, TrafficClass, without_bonds, without_copies
from appliance.contract.ids import PathId
from appliance.core.steering import Steering
from appliance.kernel.kernel import Kernel
from appliance.supervisor.warnings import Warnings


def possible(intent: Intent, kernel: Kernel, warnings: Warnings) -> Intent:
    """The intent as far as the kernel can carry it out, with warnings of what it cannot."""
    twice = kernel.duplication_trouble() if intent.duplicated else None
    striped = kernel.bonding_trouble() if intent.bonded else None
    text = _refused("send packets twice", twice, intent.duplicated, "single")
    warnings.warn("duplicate-unavailable", "kernel", "warning", text)
    text = _refused("spread one flow over several lines", striped, intent.bonded, "share")
    warnings.warn("bond-unavailable", "kernel", "warning", text)
    if twice is not None:
        intent = without_copies(intent)
    return without_bonds(intent) if striped is not None else intent


def _refused(
    what: str, trouble: str | None, classes: tuple[TrafficClass, ...], instead: str
) -> str | None:
    if trouble is None:
        return None
    names = ", ".join(each.name for each in classes)
    return f"the kernel cannot {what} ({trouble}): {names} in mode {instead} instead"


def are_counted_apart(path: PathId, intent: Intent, steering: Steering) -> bool:
    """Do both ends count other packets of a path, though nothing is lost?

    Of packets that are sent twice only one is let in; those of a bond are counted before it is
    known by which path they leave.
    """
    for each in (*intent.duplicated, *intent.bonded):
        assignment = steering.assignments.get((each.name, path.site))
        if assignment is not None and path in assignment.paths and len(assignment.paths) > 1:
            return True
    return False
