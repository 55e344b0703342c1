"""When devices change while they are read. What is read: tests/lab/lab_uplinks.py."""

from collections.abc import Iterator
from contextlib import closing
from typing import NoReturn

import pytest

from appliance.kernel.facts import FactsReader, UnsteadyError
from appliance.kernel.netlink import InterruptedDumpError, Netlink


@pytest.mark.parametrize("interruptions", [4, 5])
def test_a_listing_that_was_interrupted_is_begun_anew_a_few_times(
    monkeypatch: pytest.MonkeyPatch, interruptions: int
) -> None:
    whole, left = Netlink.dump, [None] * interruptions

    def interrupted() -> NoReturn:
        raise InterruptedDumpError

    def dump(self: Netlink, kind: int, payload: bytes) -> Iterator[list[bytes]]:
        if left:
            left.pop()
            interrupted()
        return whole(self, kind, payload)

    monkeypatch.setattr(Netlink, "dump", dump)
    with closing(FactsReader()) as reader:
        if interruptions < 5:
            assert "lo" in reader.read()
        else:
            with pytest.raises(UnsteadyError, match="change while they are read"):
                reader.read()
