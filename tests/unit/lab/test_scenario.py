from pathlib import Path

import pytest

from lab.scenario import ScenarioError, docstring, find_stories

TEXT = '''"""A map."""
import nothing_of_this_machine

def story(lab): ...
def helper(lab): ...
def story_second(lab): ...
class storyteller: ...
'''


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "s.py"
    path.write_text(TEXT)
    return path


def test_stories_are_found_in_order_without_importing(scenario: Path) -> None:
    assert [story.id for story in find_stories(scenario)] == ["s.py::story", "s.py::story_second"]
    assert docstring(scenario) == "A map."


def test_one_story_by_its_name(scenario: Path) -> None:
    assert [story.function for story in find_stories(scenario, "second")] == ["story_second"]
    assert [story.function for story in find_stories(scenario, "story")] == ["story"]


@pytest.mark.parametrize("text", ["def tale(lab): ...", "def story(:", "\xff\xfe"])
def test_what_is_no_scenario_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.py"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ScenarioError, match=r"bad\.py"):
        find_stories(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"missing\.py"):
        find_stories(tmp_path / "missing.py")
