"""Warns when the kernel's table of flows is nearly full: then it drops what begins anew.

Tunnels and probes are not tracked, so paths and steering do not suffer, nor do flows that are under
way. The size of the table is the box's: it costs memory, and is nobody's to raise but the owner's.
"""

import asyncio

from appliance.kernel.kernel import Kernel
from appliance.supervisor.warnings import Warnings

LOOK_S = 5.0
CROWDED, ROOMY = 0.9, 0.8  # of its size: from when on it is told, and below which no longer
TEXT = (
    "{0} of at most {1} flows are tracked: with the table full, new connections are dropped "
    "(raise net.netfilter.nf_conntrack_max, or see in `branchline flows` who has so many)"
)


class FlowTable:
    """One warning, `flow-table-full`, for as long as there is little room."""

    def __init__(self, kernel: Kernel, warnings: Warnings) -> None:
        self._kernel = kernel
        self._warnings = warnings
        self._is_crowded = False

    async def run(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Compare the number of flows with the size of the table, where the kernel has one."""
        count, most = self._kernel.flow_table() or (0, 1)
        share = ROOMY if self._is_crowded else CROWDED
        self._is_crowded = most > 0 and count >= share * most  # 0: without limit
        text = TEXT.format(count, most) if self._is_crowded else None
        self._warnings.warn("flow-table-full", "conntrack", "critical", text)
