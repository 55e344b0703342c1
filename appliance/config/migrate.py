"""Older versions of the file format, brought up to date one version at a time.

Append only: a migration that was released is never changed, so that a file of any age loads as it
did. A migration is a pure function of the whole document; it leaves its argument alone.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from appliance.config.errors import Finding, quoted
from appliance.config.schema import VERSION
from appliance.config.yaml import Value

Tree = dict[str, Value]
Migration = Callable[[Tree], Tree]

# version -> the function that makes a document of the next version. Version 1 was the first.
MIGRATIONS: Mapping[int, Migration] = MappingProxyType({})


class Unsupported(Exception):  # noqa: N818 - what the version is
    """A version that this release cannot read: nothing else in the file can be judged."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


def migrate(
    tree: Tree, migrations: Mapping[int, Migration] = MIGRATIONS, current: int = VERSION
) -> tuple[Tree, list[Finding]]:
    """The document in the current version. Raises Unsupported for a version out of reach.

    A version that is missing or no number is a finding, and then the current one is assumed, so
    that the rest of the file can be judged.
    """
    version = tree.get("version")
    if version is None:
        hint = f"begin the file with `version: {current}`"
        missing = [Finding((), "`version` is missing", hint)]
        # The reader of the file has reported a key without a value.
        return {**tree, "version": current}, [] if "version" in tree else missing
    if isinstance(version, bool) or not isinstance(version, int):
        message = f"the version must be a number, not {quoted(version)}"
        finding = Finding(("version",), message, f"`version: {current}`")
        return {**tree, "version": current}, [finding]
    if version > current:
        message = f"version {quoted(version)} is newer than this release, which reads {current}"
        raise Unsupported(Finding(("version",), message, "upgrade Branchline on the box first"))
    while version < current:
        if version not in migrations:
            message = f"there never was a version {quoted(version)} of this format"
            raise Unsupported(Finding(("version",), message, f"the current one is {current}"))
        tree = migrations[version](tree)
        version += 1
    return {**tree, "version": current}, []
