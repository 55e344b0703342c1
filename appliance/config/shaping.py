"""What must hold among the rates of a line."""

from collections.abc import Iterator

from appliance.config.errors import Finding
from appliance.config.scalars import render_rate
from appliance.config.validate import Parts

DIRECTIONS = ("up", "down")


def check_shaping(parts: Parts) -> Iterator[Finding]:
    """Everything wrong with the rates of the uplinks."""
    for index, uplink in parts.uplinks.items():
        path = ("uplinks", index, "shaping")
        if uplink.shaping is None or not parts.is_whole(*path):
            continue
        for direction in DIRECTIONS:
            rates = getattr(uplink.shaping, direction)
            if rates.least_bps > rates.most_bps:
                message = f"{render_rate(rates.least_bps)} is more than `max`"
                hint = f"at most {render_rate(rates.most_bps)}"
                yield Finding((*path, direction, "min"), message, hint)
