"""`millrace whatif POLICY.toml PIPELINE`: what another policy would have promoted on the log, and when."""

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from services.cli.models import _guarded, _print_json, _start

if TYPE_CHECKING:
    from services.cli.hindsight import History
    from services.controller.core.book import Rules
    from shared.contracts.pipeline import Pipeline
    from shared.runtime.entry import Start

TABLES = ("gate", "promotion", "rollback")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(whatif)


def whatif(
    policy: Annotated[Path, typer.Argument(help="A TOML file with [policy.gate], [policy.promotion], ...")],
    pipeline: Annotated[str, typer.Argument(help="A pipeline.")],
    begin: Annotated[str, typer.Option("--from", help="An outcome's sequence, or a time (ISO).")] = "",
    end: Annotated[str, typer.Option("--to", help="An outcome's sequence, or a time (ISO).")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Replay the recorded candidates, figures and alarms through another policy; nothing is written."""

    def find() -> dict[str, Any]:
        start = _start(pipeline)
        return compared(read_history(start), rules_with(start.pipeline, policy), begin, end)

    said = _guarded(find, as_json)
    if as_json:
        _print_json({"ok": True, **said})
    else:
        _print(said)


def rules_with(pipeline: "Pipeline", file: Path) -> "Rules":
    """The pipeline's rules with the tables of `file` in the place of its own; Refused where they are wrong.

    Tables that the file does not have are the pipeline's; they may stand below [policy] or by themselves.
    """
    from services.controller.core.book import Rules
    from shared.contracts.policies import Policy
    from shared.errors import Refused

    try:
        document = tomllib.loads(file.read_text())
        tables = document.get("policy", document)
        given = {name: tables[name] for name in TABLES if name in tables}
        read = Policy.model_validate(given)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError, TypeError) as error:
        raise Refused(f"{file}: {error}") from error
    if not given:
        raise Refused(f"{file} has none of the tables policy.gate, policy.promotion, policy.rollback")
    own = pipeline.policy
    chosen = {name: getattr(read if name in given else own, name) for name in TABLES}
    return Rules(pipeline.model.name, pipeline.feature_fingerprint, pipeline.class_count, **chosen)


def read_history(start: "Start") -> "History":
    """Everything that the controller was told and decided, and the alarms."""
    from schemas import platform_schema
    from services.cli.hindsight import History
    from services.controller.core.records import Command
    from services.controller.journal import read_entries
    from services.controller.reading import command_of, rows_of, score_of, word_of
    from shared.control.records import Records
    from shared.kafka.reader import read_topic
    from shared.runtime.tables import Table
    from shared.topics import AUDIT, COMMANDS, DRIFT, SCORES

    name, kafka, model = start.pipeline.name, start.platform.kafka, start.pipeline.model.name
    audit, commands, scores = (
        Table.of(topic.of(name), start.schema_ids[topic.of(name)], platform_schema(schema))
        for topic, schema in ((AUDIT, "audit"), (COMMANDS, "command"), (SCORES, "score"))
    )
    words = [word_of(read, model) for part in read_topic(kafka, audit.topic) for read in rows_of(audit, part)]
    figures = [score_of(read) for part in read_topic(kafka, scores.topic) for read in rows_of(scores, part)]
    asked = [
        command_of(part, read)
        for part in read_topic(kafka, commands.topic)
        for read in rows_of(commands, part)
    ]
    alarms = Records.of(DRIFT, name, start.schema_ids)
    return History(
        read_entries(kafka, audit, model),
        [score for score in figures if score is not None],
        [word for word in words if word is not None],
        [command for command in asked if isinstance(command, Command)],
        [record for part in read_topic(kafka, alarms.topic) for record in alarms.read(part)],
    )


def compared(history: "History", rules: "Rules", begin: str = "", end: str = "") -> dict[str, Any]:
    """What `rules` would have decided beside what was decided, as JSON; Refused where nothing was."""
    from services.cli.governing import row_of
    from services.cli.hindsight import rehearse, reigns
    from shared.errors import Refused

    if not history.entries:
        raise Refused("no controller has decided anything on this pipeline yet")
    first, last = _sequence(history, begin), _sequence(history, end)
    entries, state, assumed = rehearse(history, rules, first, last)
    really = [
        entry
        for entry in history.entries
        if (first < 0 or entry.labeled_sequence >= first) and (last < 0 or entry.labeled_sequence <= last)
    ]
    metric = rules.gate.metric
    return {
        "from": first,
        "to": last,
        "would": [reign.row() for reign in reigns(entries, history, metric)],
        "did": [reign.row() for reign in reigns(really, history, metric)],
        "states": {str(number): version.state for number, version in sorted(state.versions.items())},
        "assumed_accepted": sorted(assumed),
        "alarms": [
            {name: alarm[name] for name in ("id", "family", "sequence", "triggers")}
            for alarm in history.alarms
            if alarm["sequence"] >= first and (last < 0 or alarm["sequence"] <= last)
        ],
        "decisions": [row_of(entry) for entry in entries],
    }


def _sequence(history: "History", text: str) -> int:
    from services.cli.reigns import parse_when

    if not text:
        return -1
    when = parse_when(text)
    return when.sequence if when.sequence is not None else history.sequence_at(when.order_time or 0)


def _print(said: dict[str, Any]) -> None:
    for title, name in (("would have served", "would"), ("did serve", "did")):
        typer.echo(title)
        for reign in said[name]:
            value = "unknown" if reign["value"] is None else f"{reign['value']:.4f}"
            until = "on" if reign["end"] < 0 else f"to {reign['end']}"
            when = f"from outcome {max(0, reign['begin'])} {until}"
            figure = f"{reign['metric']} {value} ({reign['source']})"
            typer.echo(f"  version {reign['version']}  {when}  {figure}  {reign['reason']}")
    waiting = {n: s for n, s in said["states"].items() if s in ("validated", "awaiting", "shadow", "canary")}
    for number, state in waiting.items():
        typer.echo(f"version {number} would still be {state}: the log does not say how it would have gone on")
    if said["assumed_accepted"]:
        versions = ", ".join(map(str, said["assumed_accepted"]))
        typer.echo(f"assumed: a worker accepts version {versions}, which none was asked about")
    typer.echo(f"{len(said['alarms'])} alarms; what they set off is what they set off then")
