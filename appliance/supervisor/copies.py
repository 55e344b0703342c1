"""What packets that leave twice mean for the parts of a box that neither decide nor send."""

from appliance.config.intent import Intent, without_copies
from appliance.contract.ids import PathId
from appliance.core.steering import Steering
from appliance.kernel.kernel import Kernel
from appliance.supervisor.warnings import Warnings


def possible(intent: Intent, kernel: Kernel, warnings: Warnings) -> Intent:
    """The intent as far as the kernel can carry it out, with a warning of what it cannot."""
    trouble = kernel.duplication_trouble() if intent.duplicated else None
    text = None
    if trouble is not None:
        names = ", ".join(each.name for each in intent.duplicated)
        text = f"the kernel cannot send packets twice ({trouble}): {names} in mode single instead"
    warnings.warn("duplicate-unavailable", "kernel", "warning", text)
    return intent if trouble is None else without_copies(intent)


def are_on(path: PathId, intent: Intent, steering: Steering) -> bool:
    """Does a path carry packets of which there are two?

    Both leave and one of them is let in: what both ends count differs then, though nothing is lost.
    """
    for each in intent.duplicated:
        assignment = steering.assignments.get((each.name, path.site))
        if assignment is not None and assignment.second and path in assignment.paths:
            return True
    return False
