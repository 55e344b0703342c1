"""What must hold among the rates of a line, and the shares that classes have of it."""

from collections.abc import Iterator

from appliance.config import schema
from appliance.config.errors import Finding, Path
from appliance.config.intent import DefaultClass
from appliance.config.scalars import did_you_mean, render_rate
from appliance.config.validate import Parts

DIRECTIONS = ("up", "down")
LEAST_GUARANTEE = 0.01  # of a class that has a ceiling only
# What is left is for probes and tunnels, and for all other classes together.
MOST_GUARANTEED = 0.85


def least_guarantee(share: schema.ClassShare) -> float:
    return LEAST_GUARANTEE if share.guarantee is None else share.guarantee


def check_shaping(parts: Parts) -> Iterator[Finding]:
    """Everything wrong with the rates and shares of the uplinks."""
    classes = [each.name for each in parts.classes.values()]
    if not parts.names_classes:
        classes = [each.value for each in DefaultClass if each is not DefaultClass.DEFAULT]
    for index, uplink in parts.uplinks.items():
        path = ("uplinks", index, "shaping")
        if uplink.shaping is None or not parts.is_whole(*path):
            continue
        yield from _rates(path, uplink.shaping)
        yield from _shares(path, uplink.shaping, classes if parts.is_whole("classes") else None)


def _rates(path: Path, shaping: schema.Shaping) -> Iterator[Finding]:
    for direction in DIRECTIONS:
        rates = getattr(shaping, direction)
        if rates.least_bps > rates.most_bps:
            message = f"{render_rate(rates.least_bps)} is more than `max`"
            hint = f"at most {render_rate(rates.most_bps)}"
            yield Finding((*path, direction, "min"), message, hint)


def _shares(path: Path, shaping: schema.Shaping, classes: list[str] | None) -> Iterator[Finding]:
    """`classes` are those that may have a share; None: nobody knows."""
    first: dict[str, int] = {}
    guaranteed = 0.0
    for index, share in enumerate(shaping.classes):
        at = (*path, "classes", index)
        if first.setdefault(share.class_name, index) != index:
            yield Finding((*at, "class"), f"`{share.class_name}` has a share", "join the two")
        elif share.class_name == DefaultClass.DEFAULT.value:
            hint = "it gets what the others leave"
            yield Finding((*at, "class"), "`default` has no share of its own", hint)
        elif classes is not None and share.class_name not in classes:
            message = f"there is no class `{share.class_name}`"
            yield Finding((*at, "class"), message, did_you_mean(share.class_name, classes))
        if share.guarantee is None and share.ceiling is None:
            yield Finding(at, "neither `guarantee` nor `ceiling`", "as in `guarantee: 40 %`")
        guarantee = least_guarantee(share)
        if share.ceiling is not None and share.ceiling < guarantee:
            message = f"{_percent(share.ceiling)} is less than what is guaranteed"
            yield Finding((*at, "ceiling"), message, f"at least {_percent(guarantee)}")
        guaranteed += guarantee
    if guaranteed > MOST_GUARANTEED + 1e-9:
        message = f"{_percent(guaranteed)} of the rate are guaranteed"
        hint = f"{_percent(MOST_GUARANTEED)} at most: others need the rest"
        yield Finding((*path, "classes"), message, hint)


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.4g} %"
