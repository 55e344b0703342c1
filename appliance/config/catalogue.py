"""The applications that can be named: those that are shipped, and those of the box's file.

What is shipped is data, `catalogue.yaml` beside this module, in the form that a box's file has.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from appliance.config.schema import Application
from appliance.config.yaml import parse_yaml

FILE = Path(__file__).with_name("catalogue.yaml")


@lru_cache(maxsize=1)
def shipped() -> Mapping[str, Application]:
    """The shipped applications by name, in the order of their file. Read at the first call."""
    value: Any = parse_yaml(FILE.read_text()).value
    found = map(Application.model_validate, value["applications"])
    return MappingProxyType({each.name: each for each in found})


def known(own: Iterable[Application]) -> dict[str, Application]:
    """All applications by name: one of the file takes the place of a shipped one."""
    return {**shipped(), **{each.name: each for each in own}}
