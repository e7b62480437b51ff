"""`millrace models`: show, history, at, approve, reject, promote, rollback, freeze, unfreeze; `train` in a loop.

Every command is a record on commands.v1; what the controller says to it on audit.v1 is waited for and shown.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli import models as shared_parts

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.controller.core.state import Entry

Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]
Name = Annotated[str, typer.Argument(help="A pipeline.")]
Version = Annotated[int, typer.Argument(help="A version; the only one that can be meant by default.")]
Actor = Annotated[str, typer.Option(help="Who asks; your login by default.")]
Reason = Annotated[str, typer.Option(help="Why; it stays on the audit topic.")]
Expected = Annotated[
    int,
    typer.Option(
        help="The newest announcement's sequence that you saw; refused if another has come. -1: any."
    ),
]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for the controller's word.", min=0.1)]

HELP = {
    "approve": "Let a version that awaits approval go on trial.",
    "reject": "End the way of a version that is not champion.",
    "promote": "Make a version that passed the gate champion at once.",
    "rollback": "Bring a former champion back: the one before, or the version named.",
    "freeze": "Stop all promotions; rollbacks go on.",
    "unfreeze": "Let promotions go on.",
}


def add_to(group: typer.Typer) -> None:
    """Add the commands to `models`."""
    for kind, text in HELP.items():
        command = _global(kind) if kind in ("freeze", "unfreeze") else _on_version(kind)
        group.command(kind, help=text)(command)
    group.command("show")(_show)
    group.command("history")(_history)
    group.command("at")(_at)


def _on_version(kind: str) -> "Callable[..., None]":
    def command(
        pipeline: Name,
        version: Version = -1,
        actor: Actor = "",
        reason: Reason = "",
        expected_sequence: Expected = -1,
        timeout: Timeout = 30.0,
        as_json: Json = False,
    ) -> None:
        _ask(kind, pipeline, version, actor, reason, expected_sequence, timeout, as_json)

    return command


def _global(kind: str) -> "Callable[..., None]":
    def command(
        pipeline: Name,
        actor: Actor = "",
        reason: Reason = "",
        expected_sequence: Expected = -1,
        timeout: Timeout = 30.0,
        as_json: Json = False,
    ) -> None:
        _ask(kind, pipeline, -1, actor, reason, expected_sequence, timeout, as_json)

    return command


def _ask(
    kind: str,
    pipeline: str,
    version: int,
    actor: str,
    reason: str,
    expected_sequence: int,
    timeout_s: float,
    as_json: bool,
) -> None:
    from services.cli.governing import Governance, Request, line_of, row_of

    request = Request(kind, version, actor or _login(), reason, expected_sequence)

    def send() -> "list[Entry]":
        return Governance(shared_parts._start(pipeline)).send(request, timeout_s)

    entries = shared_parts._guarded(send, as_json)
    if as_json:
        rows = [row_of(entry) for entry in entries]
        shared_parts._print_json({"ok": True, "command": request.id, "decisions": rows})
        return
    for entry in entries:
        typer.echo(line_of(entry))


def train(pipeline: str, wait: bool, timeout_s: float, actor: str, reason: str, as_json: bool) -> None:
    """Ask the retrainer for a training; with `wait`, show what came of it."""
    from services.cli.governing import Governance, Request, row_of

    request = Request("train", actor=actor or _login(), reason=reason)

    def ask() -> dict[str, Any]:
        governance = Governance(shared_parts._start(pipeline))
        steps = governance.train(request, timeout_s if wait else 0.0)
        done = bool(steps) and steps[-1]["step"] == "done"
        verdict = governance.verdict(f"propose-{request.id}", timeout_s) if done else None
        return {
            "command": request.id,
            "steps": [
                {name: step[name] for name in ("step", "state", "sequence", "detail")} for step in steps
            ],
            "verdict": None if verdict is None else row_of(verdict),
        }

    said = shared_parts._guarded(ask, as_json)
    failed = bool(said["steps"]) and said["steps"][-1]["step"] != "done"
    if as_json:
        shared_parts._print_json({"ok": not failed, **said})
    else:
        for step in said["steps"]:
            typer.echo(f"{step['step']}  {step['state']}  {step['detail'][:200]}")
        verdict = said["verdict"]
        asked = f"asked for as {request.id}" if verdict is None else f"version {verdict['version']}"
        typer.echo(asked if verdict is None else f"{asked}: {verdict['reason']}")
    if failed:
        raise typer.Exit(1)


def versions(pipeline: str) -> dict[str, Any]:
    """Every version as the log has it, who serves, and where the announcements stand."""
    from services.cli.governing import Governance, version_rows

    state = Governance(shared_parts._start(pipeline)).state()
    return {
        "versions": version_rows(state),
        "champion": None if state.champion is None else state.champion.number,
        "sequence": state.sequence,
        "frozen": state.frozen,
    }


def print_versions(said: dict[str, Any]) -> None:
    """The versions for people."""
    for row in said["versions"]:
        since = "" if row["since"] < 0 else f"since outcome {row['since']}"
        typer.echo(f"version {row['version']:>4}  {row['state']:<11}  {row['reason']:<22}  {since}")
    if said["frozen"]:
        typer.echo("promotions are frozen; `millrace models unfreeze` lets them go on")
    if said["versions"]:
        typer.echo(f"the newest announcement is {said['sequence']}; all of them:")


def _show(
    pipeline: Name,
    version: Annotated[int, typer.Argument(help="A version.")],
    as_json: Json = False,
) -> None:
    """Everything that was decided on one version, with the gate's figures."""
    from services.cli.governing import line_of

    def find() -> "list[Entry]":
        from shared.errors import Refused

        entries = [entry for entry in _entries(pipeline) if entry.version == version]
        if not entries:
            raise Refused(f"nothing was decided on a version {version}; `millrace models list` shows all")
        return entries

    entries = shared_parts._guarded(find, as_json)
    if as_json:
        _print_entries(entries)
        return
    for entry in entries:
        typer.echo(line_of(entry))
        figures = entry.detail.get("figures")
        if isinstance(figures, dict) and "candidate" in figures:
            compared = f"{figures['candidate']} against {figures['champion']} over {figures['rows']} rows"
            typer.echo(f"    {figures['metric']} {compared}; better by at least {figures['low']}")
            typer.echo(f"    evidence {entry.evidence}")


def _history(pipeline: Name, as_json: Json = False) -> None:
    """Every decision, oldest first: time, newest outcome known, what, why, who."""
    from services.cli.governing import line_of

    entries = shared_parts._guarded(lambda: _entries(pipeline), as_json)
    if as_json:
        _print_entries(entries)
        return
    for entry in entries:
        typer.echo(line_of(entry))
    if not entries:
        typer.echo("no controller has decided anything here", err=True)


def _at(
    pipeline: Name,
    time: Annotated[str, typer.Argument(help="A time (ISO, UTC) by the events, or an outcome's sequence.")],
    as_json: Json = False,
) -> None:
    """Which version was champion then, and what predictions of that time carry."""
    from services.cli.governing import Governance
    from services.cli.reigns import Predictions, champion_at, parse_when

    def find() -> dict[str, Any]:
        when = parse_when(time)
        start = shared_parts._start(pipeline)
        carried = [] if when.order_time is None else Predictions(start).carried(when.order_time)
        return champion_at(Governance(start).entries(), when, carried)

    said = shared_parts._guarded(find, as_json)
    if as_json:
        shared_parts._print_json({"ok": True, **said})
        return
    typer.echo(f"version {said['version']}  {said['digest'][:12]}  by {said['source']}")
    if said["decided"] is not None:
        typer.echo(f"version {said['decided']} was made champion at {said['decided_at']}: {said['reason']}")
    for row in said["predictions"]:
        place = f"predictions.v1/{row['partition']} offset {row['offset']}"
        obeyed = f"version {row['version']}, announced at offset {row['registry_offset']}"
        typer.echo(f"{row['order_time']}  {place}: {obeyed}")


def _entries(pipeline: str) -> "list[Entry]":
    from services.cli.governing import Governance

    return Governance(shared_parts._start(pipeline)).entries()


def _print_entries(entries: "list[Entry]") -> None:
    from services.cli.governing import row_of

    shared_parts._print_json({"ok": True, "decisions": [row_of(entry) for entry in entries]})


def _login() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "unnamed"
