"""Write what is published of the configuration format, from the schema that the box uses.

    python -m tools.publish_config

makes docs/config.schema.json and the tables of docs/CONFIGURATION.md anew. A test fails while
either is stale.
"""

import json
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema, to_jsonable_python

from appliance.config import line, schema

DOCS = Path(__file__).resolve().parent.parent / "docs"
_TABLE = re.compile(r"(<!-- keys of (\w+) -->\n).*?(<!-- end of keys -->\n)", re.DOTALL)


class _Publisher(GenerateJsonSchema):
    """A key that is left out is absent, never null, and a section has no default worth showing."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> dict[str, Any]:
        inner = self.generate_inner(schema["schema"])
        default = self.get_default_value(schema)
        if default is None or isinstance(default, BaseModel):
            return inner
        return {**inner, "default": to_jsonable_python(default)}

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 - not ours
        return False


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a configuration file."""
    made = schema.Config.model_json_schema(schema_generator=_Publisher)
    return {"$schema": _Publisher.schema_dialect, **made, "title": "Branchline configuration"}


def with_tables(text: str) -> str:
    """The text with the table between each pair of markers made anew."""
    return _TABLE.sub(lambda found: found[1] + _table(found[2]) + found[3], text)


def _table(name: str) -> str:
    module = schema if hasattr(schema, name) else line
    model: type[BaseModel] = getattr(module, name)
    lines = ["| key | default | meaning | example |", "|---|---|---|---|"]
    for key, field in model.model_fields.items():
        examples = "<br>".join(f"`{_flow(each)}`" for each in field.examples or ())
        meaning = field.description or str(field.annotation.__doc__)
        lines.append(f"| `{field.alias or key}` | {_default(field)} | {meaning} | {examples} |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    shown = field.default
    if isinstance(field.json_schema_extra, dict):
        shown = field.json_schema_extra.get("default", shown)
    if shown is None or isinstance(shown, BaseModel):
        return ""
    return f"`{_flow(to_jsonable_python(shown))}`"


def _flow(value: object) -> str:
    """A value as YAML on one line."""
    dumped = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return dumped.removesuffix("\n").removesuffix("\n...")


def main() -> None:
    published = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    (DOCS / "config.schema.json").write_text(published)
    page = DOCS / "CONFIGURATION.md"
    page.write_text(with_tables(page.read_text()))


if __name__ == "__main__":
    main()
