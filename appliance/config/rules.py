"""A match of the file as the rules that it means: each application that it names is spelled out.

A rule holds when the conditions of the match and those of one match of the application hold. They
are joined here, so that whoever reads rules later knows nothing of applications.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TypeVar

from appliance.config import intent, schema
from appliance.config.intent import Network, is_below

T = TypeVar("T")


def rules_of(
    match: schema.Match, rule: str, applications: Mapping[str, schema.Application]
) -> Iterator[tuple[schema.Application | None, intent.Match]]:
    """Each rule of a match with the application that it is about, if any.

    `rule` is what people call the match. `applications` has every one that is named. An application
    gives no rule where it and the match cannot both hold.
    """
    written = _written(match, rule)
    if match.application is None:
        yield None, written
        return
    for name in dict.fromkeys(match.application):
        application = applications[name]
        told = f"{rule}, application {name}"
        for each in application.match:
            joined = _joined(written, each, told)
            if joined is not None:
                yield application, joined
        if application.domains:
            domains = _both(written.domains, application.domains, _deeper)
            if domains is not None:
                yield application, replace(written, domains=domains, rule=told)


def _written(match: schema.Match, rule: str) -> intent.Match:
    return intent.Match(
        dscp=tuple(match.dscp or ()),
        protocols=tuple(match.protocol or ()),
        ports=tuple(match.ports or ()),
        sources=tuple(match.sources or ()),
        destinations=tuple(match.destinations or ()),
        lans=tuple(match.lan or ()),
        devices=tuple(match.device or ()),
        domains=tuple(match.domain or ()),
        rule=rule,
    )


def _joined(
    match: intent.Match, application: schema.ApplicationMatch, rule: str
) -> intent.Match | None:
    """Both at once, or None when they exclude each other."""
    dscp = _both(match.dscp, application.dscp, _equal)
    protocols = _both(match.protocols, application.protocol, _equal)
    ports = _both(match.ports, application.ports, _common_ports)
    destinations = _both(match.destinations, application.destinations, _narrower)
    if dscp is None or protocols is None or ports is None or destinations is None:
        return None
    return intent.Match(
        dscp=dscp,
        protocols=protocols,
        ports=ports,
        sources=match.sources,
        destinations=destinations,
        lans=match.lans,
        devices=match.devices,
        domains=match.domains,
        rule=rule,
    )


def _deeper(one: str, other: str) -> str | None:
    if is_below(one, other):
        return one
    return other if is_below(other, one) else None


def _both(
    ours: tuple[T, ...], theirs: Sequence[T] | None, common: Callable[[T, T], T | None]
) -> tuple[T, ...] | None:
    """What is in both, where none stated is all; None when that is nothing."""
    if not ours or not theirs:
        return ours or tuple(theirs or ())
    found = (common(one, other) for one, other in product(ours, theirs))
    return tuple(dict.fromkeys(each for each in found if each is not None)) or None


def _equal(one: T, other: T) -> T | None:
    return one if one == other else None


def _common_ports(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int] | None:
    first, last = max(one[0], other[0]), min(one[1], other[1])
    return (first, last) if first <= last else None


def _narrower(one: Network, other: Network) -> Network | None:
    if one.version != other.version:
        return None
    if one.prefixlen < other.prefixlen:
        one, other = other, one
    return one if one.network_address in other else None
