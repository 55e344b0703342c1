"""Commands that ask no supervisor: validate, diagnostics, replay, plan --offline."""

import asyncio
import json
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from appliance.api.classified import classified
from appliance.api.problems import UnknownName, config_problems
from appliance.cli import replayed
from appliance.cli.client import Client, Refused, Unreachable
from appliance.cli.main import REFUSED, fail, print_json
from appliance.cli.planned import assumptions, plan_alone
from appliance.config.errors import ConfigError, Malformed
from appliance.config.flow import parse_flow
from appliance.config.intent import Intent, paths
from appliance.config.load import load_config
from appliance.contract.codec import encode
from appliance.contract.status import PlanText
from appliance.core.codec import RecordingError
from appliance.telemetry.diagnostics import collect, write_bundle
from appliance.telemetry.recording import NotARecording, open_recording

# What a bundle asks the supervisor for: member, parts of the address, query.
_TOLD: tuple[tuple[str, tuple[str, ...], dict[str, object]], ...] = (
    ("status.json", ("status",), {}),
    ("history.json", ("history",), {"limit": 500}),
    ("plan.json", ("plan",), {}),
    ("outstanding.json", ("plan",), {"dry_run": True}),
)


def check_config(file: Path, *, is_json: bool) -> None:
    """Print what the file describes, or everything that is wrong with it."""
    try:
        intent = load_config(file)
    except ConfigError as error:
        if is_json:
            problems = [json.loads(encode(problem)) for problem in config_problems(error)]
            print_json({"is_valid": False, "errors": problems})
        else:
            click.echo(str(error), err=True)
            count = len(error.problems)
            click.echo(f"{file}: {count} error{'s' if count > 1 else ''}", err=True)
        sys.exit(REFUSED)
    if is_json:
        print_json({"is_valid": True, "site": intent.site, "site_id": intent.site_id})
    else:
        click.echo(f"{file}: valid. {_summary(intent)}")


def _summary(intent: Intent) -> str:
    """What a configuration describes, in one sentence."""
    return (
        f"Site {intent.site} ({intent.site_id}):"
        f" uplinks {_names([uplink.name for uplink in intent.uplinks])};"
        f" peers {_names([peer.name for peer in intent.peers])}, {len(paths(intent))} paths;"
        f" classes {_names([each.name for each in intent.classes])}."
    )


def _names(names: list[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) or "none") + more


def plan_of_file(file: Path) -> Any:
    """The plan of a configuration, as the API would tell it; what it assumes is printed."""
    try:
        intent = load_config(file)
    except ConfigError as error:
        fail(str(error), "Mend the file and try again.")
    for assumed in assumptions(intent):
        click.echo(f"# assumed: {assumed}", err=True)
    return json.loads(encode(PlanText(plan_alone(intent), is_dry_run=False)))


def classify_by_file(file: Path, asked: dict[str, Any]) -> Any:
    """The class of a flow by a configuration alone, as the API would tell it."""
    try:
        told = classified(load_config(file), parse_flow(**asked))
    except ConfigError as error:
        fail(str(error), "Mend the file and try again.")
    except Malformed as error:
        fail(str(error), error.hint)
    except UnknownName as error:
        fail(str(error))
    return json.loads(encode(told))


def make_bundle(
    client: Client, state_dir: Path, config: Path, output: Path | None, now: float
) -> None:
    """Collect, redact and write; then say where it is."""
    told: dict[str, bytes] = {}
    try:
        for name, parts, query in _TOLD:
            with suppress(Refused):
                told[name] = json.dumps(client.get(*parts, **query), indent=1).encode()
    except Unreachable as error:
        click.echo(f"branchline: {error}\n  The bundle is made without its answers.", err=True)
        told["supervisor.txt"] = f"{error}\n".encode()
    moment = datetime.fromtimestamp(now).astimezone().strftime("%Y%m%d-%H%M%S")
    path = output or Path(f"branchline-diagnostics-{moment}.tar.gz")

    async def members() -> dict[str, bytes]:
        return {name: octets async for name, octets in collect(config, state_dir, told)}

    try:
        write_bundle(path, asyncio.run(members()), now)
    except OSError as error:
        fail(f"{path}: {error.strerror}", "Say with --output where the file may be made.")
    click.echo(f"{path}: keys are removed from it; look into it before you send it on")


def replay_recording(recording: Path, config: Path | None, *, is_json: bool) -> None:
    """Decide a recording again and print the moves, or what another configuration changes."""
    try:
        other = load_config(config) if config is not None else None
        story = replayed.decide_again(open_recording(recording), other)
    except ConfigError as error:
        fail(str(error), "Mend the file and try again.")
    except (NotARecording, RecordingError) as error:
        fail(
            str(error),
            "Give it the recorder's directory, or an events-*.jsonl file of this version.",
        )
    except OSError as error:
        fail(f"{recording}: {error.strerror}", "Check its permissions.")
    if is_json:
        print_json(replayed.as_json(story))
    else:
        replayed.show(story)
