"""What must hold among the rates of a line, and the shares that classes have of it."""

from collections.abc import Iterator, Mapping

from appliance.config.errors import Finding, Path
from appliance.config.intent import DefaultClass
from appliance.config.line import ClassShare, LineShare, Shaping
from appliance.config.scalars import did_you_mean, render_rate
from appliance.config.validate import Parts

DIRECTIONS = ("up", "down")
LEAST_GUARANTEE = 0.01  # of a class that has a ceiling only
# What is left is for probes and tunnels, and for all other classes together.
MOST_GUARANTEED = 0.85


def least_guarantee(share: ClassShare) -> float:
    return LEAST_GUARANTEE if share.guarantee is None else share.guarantee


def check_shaping(parts: Parts) -> Iterator[Finding]:
    """Everything wrong with the rates and shares of the uplinks, and what peers' lines receive."""
    classes = [each.name for each in parts.classes.values()]
    if not parts.names_classes:
        classes = [each.value for each in DefaultClass if each is not DefaultClass.DEFAULT]
    sites = {peer.name: bool(peer.prefixes) for peer in parts.peers.values()}
    for index, uplink in parts.uplinks.items():
        path = ("uplinks", index, "shaping")
        if uplink.shaping is None or not parts.is_whole(*path):
            continue
        yield from _rates(path, uplink.shaping)
        yield from _classes(path, uplink.shaping, classes if parts.is_whole("classes") else None)
        yield from _sites(path, uplink.shaping, sites if parts.is_whole("peers") else None)
        yield from _sum(path, uplink.shaping)
    is_shaped = any(each.shaping for each in parts.uplinks.values())
    for index, peer in parts.peers.items():
        for number, line in enumerate(peer.uplinks):
            at = ("peers", index, "uplinks", number, "down")
            if line.down is None:
                continue
            if not is_shaped and parts.is_whole("uplinks"):
                message = "nothing is queued here, because no uplink has `shaping`"
                yield Finding(at, message, "give the uplinks of this box their rates")
            elif not peer.prefixes and parts.is_whole("peers", index):
                hint = "it is what goes to them that is held back"
                yield Finding(at, f"`{peer.name}` has no prefixes", hint)


def _rates(path: Path, shaping: Shaping) -> Iterator[Finding]:
    for direction in DIRECTIONS:
        rates = getattr(shaping, direction)
        if rates.least_bps > rates.most_bps:
            message = f"{render_rate(rates.least_bps)} is more than `max`"
            hint = f"at most {render_rate(rates.most_bps)}"
            yield Finding((*path, direction, "min"), message, hint)


def _classes(path: Path, shaping: Shaping, classes: list[str] | None) -> Iterator[Finding]:
    """`classes` are those that may have a share; None: nobody knows."""
    first: dict[str, int] = {}
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
        yield from _share(at, share, least_guarantee(share))


def _sites(path: Path, shaping: Shaping, sites: Mapping[str, bool] | None) -> Iterator[Finding]:
    """`sites` are the peers, and whether they have prefixes; None: nobody knows all of them."""
    first: dict[str, int] = {}
    for index, share in enumerate(shaping.sites):
        at = (*path, "sites", index)
        if first.setdefault(share.site, index) != index:
            yield Finding((*at, "site"), f"`{share.site}` has a share", "join the two")
        elif sites is not None and share.site not in sites:
            message = f"there is no peer `{share.site}`"
            yield Finding((*at, "site"), message, did_you_mean(share.site, sites))
        elif sites is not None and not sites[share.site]:
            hint = "a share is of what goes to them and comes from there"
            yield Finding((*at, "site"), f"`{share.site}` has no prefixes", hint)
        yield from _share(at, share, share.guarantee or 0.0)


def _share(at: Path, share: LineShare, guarantee: float) -> Iterator[Finding]:
    if share.guarantee is None and share.ceiling is None:
        yield Finding(at, "neither `guarantee` nor `ceiling`", "as in `guarantee: 40 %`")
    if share.ceiling is not None and share.ceiling < guarantee:
        message = f"{_percent(share.ceiling)} is less than what is guaranteed"
        yield Finding((*at, "ceiling"), message, f"at least {_percent(guarantee)}")


def _sum(path: Path, shaping: Shaping) -> Iterator[Finding]:
    """Guarantees of classes and of sites are parts of one rate."""
    guaranteed = sum(map(least_guarantee, shaping.classes))
    guaranteed += sum(share.guarantee or 0.0 for share in shaping.sites)
    if guaranteed > MOST_GUARANTEED + 1e-9:
        message = f"{_percent(guaranteed)} of the rate are guaranteed"
        hint = f"{_percent(MOST_GUARANTEED)} at most: others need the rest"
        yield Finding((*path, "classes" if shaping.classes else "sites"), message, hint)


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.4g} %"
