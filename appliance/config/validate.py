"""One section of the file after the other against its schema, with findings in plain words.

A file with a fault is taken apart, so that what is sound in it can still be checked and as much as
possible is said at once. Only what hangs on a damaged part has to wait until that is mended.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from appliance.config import schema
from appliance.config.errors import Finding, Malformed, Path, quoted
from appliance.config.fields import Section
from appliance.config.scalars import did_you_mean
from appliance.config.yaml import Value

_Model = TypeVar("_Model", bound=Section)


@dataclass(frozen=True, slots=True)
class Parts:
    """The sound parts of a file, list items by their position in the file."""

    site: schema.Site | None
    fleet: schema.Fleet | None
    uplinks: Mapping[int, schema.Uplink]
    lans: Mapping[int, schema.Lan]
    peers: Mapping[int, schema.Peer]
    applications: Mapping[int, schema.Application]
    classes: Mapping[int, schema.TrafficClass]
    policies: Mapping[int, schema.Policy]
    probing: schema.Probing | None
    wireguard: schema.Wireguard | None
    dns: schema.Dns | None = None
    gateways: tuple[str, ...] = ()
    names_classes: bool = True  # False: the file has no key `classes`
    damaged: frozenset[Path] = frozenset()  # every path at or below which something is wrong

    def is_whole(self, *path: str | int) -> bool:
        """Is all that stands under the path in the file there?"""
        return path not in self.damaged


def validate(
    tree: dict[str, Value], broken: Iterable[Path] = ()
) -> tuple[schema.Config | None, Parts, list[Finding]]:
    """The whole configuration, unless there are findings, and its sound parts.

    `broken` are the paths at which the reader of the file found something wrong.
    """
    try:
        config = schema.Config.model_validate(tree)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        # The reader has reported every null, and put one where an alias was.
        findings = [_explain(e, tree) for e in errors if e["input"] is not None]
        wrong = [*broken, *(finding.path for finding in findings)]
        return None, _sound_parts(tree, _with_parents(wrong)), findings
    return config, _all_parts(config, _with_parents(broken)), []


def _with_parents(paths: Iterable[Path]) -> frozenset[Path]:
    return frozenset(path[:depth] for path in paths for depth in range(1, len(path) + 1))


def _all_parts(config: schema.Config, damaged: frozenset[Path]) -> Parts:
    return Parts(
        config.site,
        config.fleet,
        dict(enumerate(config.uplinks)),
        dict(enumerate(config.lans)),
        dict(enumerate(config.peers)),
        dict(enumerate(config.applications)),
        dict(enumerate(config.classes or ())),
        dict(enumerate(config.policies)),
        config.probing,
        config.wireguard,
        config.dns,
        tuple(config.gateways),
        config.classes is not None,
        damaged,
    )


def _sound_parts(tree: dict[str, Value], damaged: frozenset[Path]) -> Parts:
    def items(key: str, model: type[_Model]) -> dict[int, _Model]:
        value = tree.get(key, [])
        found = enumerate(value if isinstance(value, list) else [])
        sound = ((index, _salvage(model, item)) for index, item in found)
        return {index: item for index, item in sound if item is not None}

    return Parts(
        _salvage(schema.Site, tree.get("site")),
        _salvage(schema.Fleet, tree.get("fleet")),
        items("uplinks", schema.Uplink),
        items("lans", schema.Lan),
        items("peers", schema.Peer),
        items("applications", schema.Application),
        items("classes", schema.TrafficClass),
        items("policies", schema.Policy),
        _salvage(schema.Probing, tree.get("probing", {})),
        _salvage(schema.Wireguard, tree.get("wireguard", {})),
        _salvage(schema.Dns, tree.get("dns", {})),
        _names(tree.get("gateways")),
        "classes" in tree,
        damaged,
    )


def _names(value: Value) -> tuple[str, ...]:
    return tuple(n for n in value if isinstance(n, str)) if isinstance(value, list) else ()


def _salvage(model: type[_Model], value: Value) -> _Model | None:
    """The section without the keys that are at fault, or None when it cannot do without one."""
    while isinstance(value, dict):
        try:
            return model.model_validate(value)
        except ValidationError as error:
            wrong = {each["loc"][0] for each in error.errors(include_url=False)}
            if not wrong & value.keys():
                return None
            value = {key: child for key, child in value.items() if key not in wrong}
    return None


_NUMBERS = ("int_type", "float_type")
_WORDS = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "model_type": "must be a mapping of keys",
}
_SECRETS = frozenset({"private_key", "preshared_key", "psk", "key", "secret", "password"})


def _explain(error: ErrorDetails, tree: dict[str, Value]) -> Finding:
    """A finding in the words of the file for one of pydantic's errors."""
    path, kind, value = error["loc"], error["type"], error["input"]
    context = error.get("ctx", {})
    match kind:
        case "missing":
            return Finding(path[:-1], f"`{path[-1]}` is missing", _example(path))
        case "extra_forbidden":
            return _unknown_key(path, tree)
        case "value_error":
            malformed: Malformed = context["error"]
            return Finding(path, str(malformed), malformed.hint)
        case "greater_than_equal":
            return Finding(path, f"must be at least {context['ge']:g}, not {quoted(value)}")
        case "less_than_equal":
            return Finding(path, f"must be at most {context['le']:g}, not {quoted(value)}")
        case "too_short":
            return Finding(path, "the list is empty", "name at least one, or leave the key out")
        case _ if kind in _WORDS:
            is_number = kind in _NUMBERS and isinstance(value, str) and value.isdecimal()
            hint = "leave the quotes out" if is_number else ""
            return Finding(path, f"{_WORDS[kind]}, not {quoted(value)}", hint)
        case _:
            return Finding(path, error["msg"])


def _unknown_key(path: Path, tree: dict[str, Value]) -> Finding:
    key = str(path[-1])
    known = _fields_at(path[:-1])
    files = [name for name in known if name.endswith("key_file")]
    if key in _SECRETS:
        instead = f"give the file's name as `{files[0]}`" if files else "see `..._file`"
        return Finding(path, f"unknown key {quoted(key)}", f"keys live in files: {instead}")
    present: Any = tree
    for part in path[:-1]:
        present = present[part]
    absent = [name for name in known if name not in present]
    return Finding(path, f"unknown key {quoted(key)}", did_you_mean(key, absent) or "leave it out")


def _example(path: Path) -> str:
    """How the missing key at the end of the path could look."""
    examples = _fields_at(path[:-1])[str(path[-1])].examples or []
    return next((f"as in `{path[-1]}: {e}`" for e in examples if not isinstance(e, list)), "")


def _fields_at(path: Path) -> dict[str, FieldInfo]:
    """The keys that the mapping at a path may have."""
    fields = _fields_of(schema.Config)
    for part in path:
        if isinstance(part, str):
            fields = next((_fields_of(m) for m in _models_in(fields[part].annotation)), {})
    return fields


def _fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
