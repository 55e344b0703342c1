"""Find the stories in a scenario file, without importing it: it is meant for the guest."""

import ast
from pathlib import Path

from lab.boot import Story


class ScenarioError(Exception):
    """The file is not a scenario. The text says why."""


def find_stories(path: Path, only: str | None = None) -> list[Story]:
    """The functions `story` and `story_*`, in order. Raises ScenarioError."""
    path = path.resolve()
    try:
        tree = ast.parse(path.read_text(), str(path))
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        message = f"{path}: {error}"
        raise ScenarioError(message) from error
    names = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and (node.name == "story" or node.name.startswith("story_"))
        and (only is None or node.name in {only, f"story_{only}"})
    ]
    if not names:
        wanted = f"story named {only}" if only else "function story(lab) or story_*(lab)"
        message = f"{path}: no {wanted}"
        raise ScenarioError(message)
    return [Story(path, name) for name in names]


def docstring(path: Path) -> str:
    """The scenario's map and story in words."""
    return ast.get_docstring(ast.parse(path.read_text())) or ""
