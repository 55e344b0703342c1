"""A table of flows that fills up is told of, and no longer when there is room."""

from appliance.kernel.fake import FakeKernel
from appliance.supervisor.flow_table import FlowTable
from appliance.supervisor.warnings import Warnings


def test_little_room_is_told_until_there_is_more() -> None:
    kernel, warnings = FakeKernel(), Warnings()
    table = FlowTable(kernel, warnings)
    for found, is_told in (
        (None, False),
        ((12, 0), False),
        ((899, 1000), False),
        ((900, 1000), True),
        ((1000, 1000), True),
        ((801, 1000), True),
        ((799, 1000), False),
        ((850, 1000), False),
    ):
        kernel.table = found
        table.look()
        assert bool(warnings.standing) == is_told, found
