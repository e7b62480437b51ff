"""`millrace dlq list|show|redrive`: what was turned away, why, and back again once the cause is mended."""

import base64
import json
import sys
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.settings import PlatformSettings

if TYPE_CHECKING:
    from services.cli.letters import Letter

Name = Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Only this reason, such as avro.eof.")]
All = Annotated[bool, typer.Option("--all", help="Those already sent again too.")]
Number = Annotated[int, typer.Argument(metavar="NUMBER", help="The letter's number in the list.")]
Only = Annotated[list[int] | None, typer.Option("--number", help="Only this letter; may be given again.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]

NOT_FOUND = 1


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Dead letters: list, show, redrive.")
    group.command("list")(list_letters)
    group.command("show")(show)
    group.command("redrive")(redrive)
    app.add_typer(group, name="dlq")


def list_letters(pipeline: Name, reason: Reason = None, every: All = False, as_json: Json = False) -> None:
    """List the dead letters, oldest first."""
    from services.cli.letters import read_letters, without_marks

    found = [
        (letter, done)
        for letter, done in without_marks(read_letters(PlatformSettings().kafka, pipeline))
        if reason in (None, letter.reason) and (every or not done)
    ]
    if as_json:
        typer.echo(json.dumps([as_object(letter, done) for letter, done in found]))
        return
    for letter, done in found:
        again = " (sent again)" if done else ""
        typer.echo(
            f"{letter.number:>8}  {letter.reason:<22} {letter.topic}/{letter.partition}@{letter.offset}"
            f"  attempt {letter.attempt}{again}"
        )
    counts = Counter(letter.reason for letter, _ in found)
    total = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    typer.echo(f"{len(found)} dead letters{': ' + total if total else ''}")


def show(pipeline: Name, number: Number, as_json: Json = False) -> None:
    """Show one dead letter whole; exit code 1 if there is none of this number."""
    from services.cli.letters import read_letters, without_marks

    letters = without_marks(read_letters(PlatformSettings().kafka, pipeline))
    found = next(((letter, done) for letter, done in letters if letter.number == number), None)
    if found is None:
        sys.stderr.write(f"there is no dead letter {number}; `millrace dlq list {pipeline}` has them\n")
        raise typer.Exit(NOT_FOUND)
    said = as_object(*found)
    if as_json:
        typer.echo(json.dumps(said))
        return
    for name, value in said.items():
        typer.echo(f"{name:<12} {value}")
    typer.echo(_hexdump(found[0].value))


def redrive(pipeline: Name, reason: Reason = None, numbers: Only = None, as_json: Json = False) -> None:
    """Send dead letters back to their topics; those sent before stay where they are."""
    from services.cli.letters import Redrive
    from shared.codec.frame import frame_prefix
    from shared.contracts.pipeline import find_pipeline, load_pipeline
    from shared.kafka.registry import Registry, register_pipeline
    from shared.topics import DLQ

    declared = load_pipeline(find_pipeline(pipeline))
    platform = PlatformSettings()
    with Registry(platform.registry) as registry:
        prefix = frame_prefix(register_pipeline(registry, declared)[DLQ.of(declared.name)])
    sent = Redrive(platform.kafka, declared.name, prefix).run(reason, numbers or ())
    if as_json:
        typer.echo(json.dumps({"redriven": len(sent), "numbers": [letter.number for letter in sent]}))
        return
    typer.echo(f"{len(sent)} dead letters sent again")


def as_object(letter: "Letter", done: bool) -> dict[str, Any]:
    """A letter as JSON: bytes in base64, times in ISO 8601."""
    return {
        "number": letter.number,
        "reason": letter.reason,
        "message": letter.message,
        "service": letter.service,
        "error_class": letter.error_class,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp": letter.timestamp,
        "time": _iso(letter.timestamp),
        "key": _base64(letter.key),
        "value": _base64(letter.value),
        "headers": [[name, _base64(value)] for name, value in letter.headers],
        "attempt": letter.attempt,
        "redriven": done,
    }


def _iso(timestamp_ms: int) -> str | None:
    try:
        return datetime.fromtimestamp(timestamp_ms / 1_000, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        # Beyond the years that Python has: the number stands beside it.
        return None


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _hexdump(value: bytes | None, limit: int = 512) -> str:
    if value is None:
        return "no value"
    lines = []
    for at in range(0, min(len(value), limit), 16):
        part = value[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{at:06x}  {part.hex(' '):<47}  {text}")
    if len(value) > limit:
        lines.append(f"… {len(value) - limit} bytes more; --json has all of them")
    return "\n".join(lines)
