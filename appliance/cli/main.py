"""The command `branchline`. Each command loads what it needs when it runs: most answer quickly.

Exit status: 0 done, 1 refused or wrong (the text says what to do next), 2 a wrong command line,
3 no supervisor answers.
"""

import gc
import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

import click

from appliance import __version__
from appliance.cli.client import Client, Refused, Unreachable
from appliance.contract.wire import SOCKET_NAME

DEFAULT_STATE_DIR = Path("/var/lib/branchline")
DEFAULT_RUN_DIR = Path("/run/branchline")
DEFAULT_CONFIG = Path("/etc/branchline/config.yaml")
REFUSED, UNREACHABLE = 1, 3
# Between two looks for cyclic garbage, of which the supervisor makes little: its code and a hub's
# plan are hundreds of thousands of objects, and going through them again and again is a tenth of
# its start.
GARBAGE_OBJECTS = 50_000

P = ParamSpec("P")
R = TypeVar("R")


class Context:
    """Where the supervisor keeps its state, and how to reach it."""

    def __init__(self, state_dir: Path, run_dir: Path | None, socket: Path | None) -> None:
        is_usual = state_dir == DEFAULT_STATE_DIR
        self.state_dir = state_dir
        self.run_dir = run_dir or (DEFAULT_RUN_DIR if is_usual else state_dir / "run")
        self.socket = socket or self.run_dir / SOCKET_NAME
        self.client = Client(self.socket)


pass_context = click.make_pass_decorator(Context)
as_json = click.option("--json", "is_json", is_flag=True, help="Print JSON for programs.")
config_file = click.Path(dir_okay=False, path_type=Path)


def fail(text: str, next_step: str = "", status: int = REFUSED) -> NoReturn:
    """End the command with what went wrong and what to do about it."""
    click.echo(f"branchline: {text}", err=True)
    if next_step:
        click.echo(f"  next: {next_step}", err=True)
    sys.exit(status)


def asking(command: Callable[P, R]) -> Callable[P, R]:
    """A command that asks the supervisor: what the supervisor refuses ends the command."""

    @wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except Unreachable as error:
            fail(str(error), status=UNREACHABLE)
        except Refused as error:
            for wrong in error.errors:
                hint = f" ({wrong['hint']})" if wrong["hint"] else ""
                place = f"{wrong['line']}:{wrong['column']} {wrong['pointer']}"
                click.echo(f"{place}: {wrong['message']}{hint}", err=True)
            fail(str(error), error.next_step)

    return guarded


def print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def wall() -> float:
    """Seconds since 1970."""
    from appliance.clock import wall_ns

    return wall_ns() / 1e9


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="branchline")
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="BRANCHLINE_STATE_DIR",
    default=DEFAULT_STATE_DIR,
    show_default=True,
    show_envvar=True,
    help="Where the supervisor keeps what outlives a boot.",
)
@click.option(
    "--run-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="BRANCHLINE_RUN_DIR",
    show_envvar=True,
    help="Where it keeps leases and its socket.  "
    f"[default: {DEFAULT_RUN_DIR}; with another state directory, run in it]",
)
@click.option(
    "--socket",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The supervisor's socket, if not api.sock in the run directory.",
)
@click.pass_context
def main(
    context: click.Context, state_dir: Path, run_dir: Path | None, socket: Path | None
) -> None:
    """Branchline steers traffic over measured WireGuard paths."""
    context.obj = Context(state_dir, run_dir, socket)


@main.command()
@click.option(
    "--config", type=config_file, default=DEFAULT_CONFIG, show_default=True, help="What to be."
)
@click.option("--verbose", is_flag=True, help="Log details too.")
@pass_context
def run(context: Context, config: Path, *, verbose: bool) -> None:
    """Run the supervisor until it is stopped. Stopping it leaves forwarding as it is."""
    gc.set_threshold(GARBAGE_OBJECTS)
    from appliance.supervisor.run import run as run_supervisor
    from appliance.telemetry.log import set_up

    set_up(is_verbose=verbose)
    sys.exit(run_supervisor(config, context.state_dir, context.run_dir))


@main.command()
@click.argument("file", type=config_file)
@as_json
def validate(file: Path, *, is_json: bool) -> None:
    """Check a configuration file and list everything that is wrong with it."""
    from appliance.cli.offline import check_config

    check_config(file, is_json=is_json)


@main.command()
@as_json
@pass_context
@asking
def status(context: Context, *, is_json: bool) -> None:
    """Is this box well? Its uplinks, warnings and how old the data is."""
    answer = context.client.get("status")
    if is_json:
        return print_json(answer)
    from appliance.cli import tables

    return tables.show_status(tables.console(), answer, wall())


@main.command()
@click.option("--site", help="Only paths to this site.")
@as_json
@pass_context
@asking
def paths(context: Context, site: str | None, *, is_json: bool) -> None:
    """The measured paths: delay, jitter, loss, voice quality and state."""
    answer = context.client.get("paths", site=site)
    if is_json:
        return print_json(answer)
    from appliance.cli import tables

    return tables.show_paths(tables.console(), answer)


@main.command()
@click.option("--class", "class_name", help="Only this class.")
@click.option("--site", help="Only toward this site.")
@as_json
@pass_context
@asking
def classes(context: Context, class_name: str | None, site: str | None, *, is_json: bool) -> None:
    """Which path carries each class to each site, since when and why."""
    answer = context.client.get("classes", site=site, **{"class": class_name})
    if is_json:
        return print_json(answer)
    from appliance.cli import tables

    return tables.show_classes(tables.console(), answer, wall())


@main.command()
@click.argument("class_name", metavar="CLASS")
@click.argument("site")
@as_json
@pass_context
@asking
def why(context: Context, class_name: str, site: str, *, is_json: bool) -> None:
    """Why CLASS goes to SITE the way it does: the candidates and what decided."""
    answer = context.client.get("why", class_name, site)
    if is_json:
        return print_json(answer)
    from appliance.cli import tables

    return tables.show_why(tables.console(), answer, wall())


@main.command()
@click.option("--from", "source", required=True, metavar="HOST", help="Address that begins it.")
@click.option("--to", "destination", required=True, metavar="DEST", help="Address it calls.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port that it calls.")
@click.option("--protocol", help="tcp (with a port, unless said), udp, icmp, ...")
@click.option("--dscp", help="As it is sent: ef, af41, 46, ...  [default: 0]")
@click.option("--lan", help="LAN it begins in.  [default: the one of its address]")
@click.option("--device", metavar="MAC", help="MAC address of who begins it.")
@click.option(
    "--name", help="Name that it asked for DEST by.  [default: what was asked of the box]"
)
@click.option("--config", type=config_file, help="By this file; no supervisor is asked.")
@as_json
@pass_context
@asking
def classify(
    context: Context,
    source: str,
    destination: str,
    port: int | None,
    protocol: str | None,
    dscp: str | None,
    lan: str | None,
    device: str | None,
    name: str | None,
    config: Path | None,
    *,
    is_json: bool,
) -> None:
    """Which class a flow from HOST to DEST is in, by which rule, and what carries it now.

    Addresses only: names are not looked up. HOST is the side that calls.
    """
    more = {"port": port, "protocol": protocol, "dscp": dscp, "lan": lan, "device": device}
    more["name"] = name
    if config is None:
        ends = {"from": source, "to": destination}
        answer = context.client.get("classify", **ends, **more)
    else:
        from appliance.cli.offline import classify_by_file

        asked = {"source": source, "destination": destination, **more}
        answer = classify_by_file(config, asked)
    if is_json:
        return print_json(answer)
    from appliance.cli import tables

    return tables.show_classified(tables.console(), answer, is_running=config is None)


@main.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--class", "class_name", help="Only this class.")
@as_json
@pass_context
@asking
def flows(context: Context, limit: int, class_name: str | None, *, is_json: bool) -> None:
    """Live flows, the fastest first: class, likely rule, path and rates."""
    answer = context.client.get("flows", limit=limit, **{"class": class_name})
    if is_json:
        return print_json(answer)
    from appliance.cli import tables

    return tables.show_flows(tables.console(), answer)


@main.command()
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("--class", "class_name", help="Only this class.")
@click.option("--site", help="Only toward this site.")
@click.option("--minutes", type=click.FloatRange(min=0), help="Only the last so many minutes.")
@as_json
@pass_context
@asking
def history(
    context: Context,
    limit: int,
    class_name: str | None,
    site: str | None,
    minutes: float | None,
    *,
    is_json: bool,
) -> None:
    """The last moves of classes, each with its reason and evidence."""
    since = None if minutes is None else max(0.0, wall() - 60 * minutes)
    answer = context.client.get(
        "history", limit=limit, site=site, since=since, **{"class": class_name}
    )
    if is_json:
        return print_json(answer)
    from appliance.cli import tables

    return tables.show_history(tables.console(), answer, wall())


@main.command()
@click.option("--dry-run", is_flag=True, help="Only what is outstanding; nothing is applied.")
@click.option("--config", type=config_file, help="The plan of this file instead.")
@click.option("--offline", is_flag=True, help="Ask no supervisor: go by the file alone.")
@as_json
@pass_context
@asking
def plan(
    context: Context, config: Path | None, *, dry_run: bool, offline: bool, is_json: bool
) -> None:
    """Everything that Branchline owns in the kernel, as ip, wg, nft and sysctl commands.

    It changes nothing. With --config it shows what another configuration would be; with --dry-run
    too, what putting it in force would do. The running supervisor is asked, for it knows leases,
    keys and measurements; --offline does without it, on any machine, and says what it assumes.
    """
    if offline:
        if dry_run:
            wrong = "--dry-run compares with the kernel, which --offline does not ask"
            raise click.UsageError(wrong)
        from appliance.cli.offline import plan_of_file

        answer = plan_of_file(config or DEFAULT_CONFIG)
    elif config is None:
        answer = context.client.get("plan", dry_run=dry_run)
    else:
        try:
            answer = context.client.post("plan", config=_read(config), dry_run=dry_run)
        except Unreachable as error:
            alone = f"Or go by the file alone: branchline plan --config {config} --offline"
            fail(str(error), alone, UNREACHABLE)
    if is_json:
        return print_json(answer)
    for command in answer["commands"]:
        click.echo(command)
    if not answer["commands"]:
        click.echo("# nothing to do: the kernel is as planned", err=True)
    return None


@main.command()
@as_json
@pass_context
@asking
def reload(context: Context, *, is_json: bool) -> None:
    """Read the configuration file again. One with errors is refused and changes nothing."""
    answer = context.client.post("reload")
    if is_json:
        return print_json(answer)
    what = "is in force now" if answer["is_changed"] else "has not changed"
    return click.echo(f"configuration {answer['digest']} {what}")


@main.command()
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to make.  [default: branchline-diagnostics-DATE.tar.gz here]",
)
@click.option(
    "--config", type=config_file, default=DEFAULT_CONFIG, show_default=True, help="Its file."
)
@pass_context
def diagnostics(context: Context, output: Path | None, config: Path) -> None:
    """Pack what helps to find a fault into one file, without keys. Works without supervisor too."""
    from appliance.cli.offline import make_bundle

    make_bundle(context.client, context.state_dir, config, output, wall())


@main.command()
@click.argument("recording", type=click.Path(exists=True, path_type=Path))
@click.option("--config", type=config_file, help="Decide under this configuration instead.")
@as_json
def replay(recording: Path, config: Path | None, *, is_json: bool) -> None:
    """Decide RECORDING again: a file of events, or the recorder's directory.

    With --config, show which decisions would have differed under another configuration.
    """
    from appliance.cli.offline import replay_recording

    replay_recording(recording, config, is_json=is_json)


def _read(config: Path) -> bytes:
    try:
        return config.read_bytes()
    except OSError as error:
        fail(f"{config} cannot be read: {error.strerror}", "Check its name and permissions.")


if __name__ == "__main__":
    main()
