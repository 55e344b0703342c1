"""What our own shapers drop, so that no path is blamed for it."""

from appliance.config.addressing import shaper_device
from appliance.config.intent import Intent
from appliance.contract.ids import Plane, SiteId
from appliance.kernel.kernel import Kernel


class Drops:
    """Tells whether a shaper has dropped anything since a comparison before."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._seen: dict[tuple[str, Plane, SiteId], int | None] = {}

    def since_before(self, intent: Intent, direction: str, plane: Plane, site: SiteId) -> bool:
        """Has it, since this was last asked of the path to a site? True when nobody can tell."""
        uplink = intent.uplink(plane.local)
        if uplink is None or uplink.shaping is None:
            return False
        device = shaper_device(plane.local, direction)
        asker = device, plane, site
        dropped = self._kernel.read_drops(device)
        before = self._seen.get(asker)
        self._seen[asker] = dropped
        return dropped is None or dropped != before
