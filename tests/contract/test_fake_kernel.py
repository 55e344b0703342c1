"""The kernel in memory keeps what the real one promises."""

from ipaddress import ip_address

import pytest

from appliance.config.intent import Address
from appliance.kernel.fake import FakeKernel
from appliance.plan.plan import Item, Key
from tests.contract.kernel_contract import CHECKS
from tests.unit.plan import examples as ex


class FakeWorld:
    """Hands on a FakeKernel."""

    public_key = ex.KEY_A
    far_key = ex.KEY_B

    def __init__(self) -> None:
        self.kernel = FakeKernel(devices=ex.BRANCH_DEVICES)

    def remove(self, key: Key) -> None:
        self.kernel.remove(key)

    def put_foreign(self, key: Key, item: Item) -> None:
        self.kernel.put_foreign(key, item)

    def drift(self, key: Key) -> None:
        self.kernel.drift(key)

    def has_foreign(self, key: Key) -> bool:
        return key in self.kernel.foreign

    def roam(self, key: Key) -> tuple[Address, int]:
        elsewhere = ip_address("192.0.2.200"), 34567
        self.kernel.roam(key, elsewhere)
        return elsewhere


@pytest.mark.parametrize("name", CHECKS)
async def test_contract(name):
    await CHECKS[name](FakeWorld())
