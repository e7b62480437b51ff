"""`millrace replay`: the rows of a file as events and delayed labels, in one order, at any speed."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared.settings import PlatformSettings

if TYPE_CHECKING:
    from services.cli.lockstep import Lockstep
    from services.cli.script import Script
    from shared.contracts.pipeline import Pipeline

File = Annotated[Path, typer.Argument(metavar="FILE", help="A .csv, .csv.gz or .parquet file.")]
Name = Annotated[
    str, typer.Option("--pipeline", help="The pipeline; its [source] says what the columns are.")
]
Rate = Annotated[float | None, typer.Option("--rate", help="Events a second; labels come beside them.")]
Speed = Annotated[float | None, typer.Option("--speed", help="Times real time, 3600 for an hour a second.")]
After = Annotated[
    str | None,
    typer.Option(
        "--labels-after",
        help='When labels follow, as "7d"; "none" for none. By default as [source] or the horizon says.',
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many rows.")]
Start = Annotated[int, typer.Option("--start", min=0, help="The first row, from 0.")]
Steps = Annotated[
    int | None,
    typer.Option(
        "--lockstep",
        min=1,
        help="Send so many events, wait until every service has caught up and no training is under way, go on.",
    ),
]
Timeout = Annotated[
    str | None, typer.Option("--timeout", help="In lockstep: how long one step may take; 15m by default.")
]
Json = Annotated[bool, typer.Option("--json", help="The summary as one JSON object.")]
Watch = Callable[[int, int], None]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    file: File,
    pipeline: Name,
    rate: Rate = None,
    speed: Speed = None,
    labels_after: After = None,
    limit: Limit = None,
    start: Start = 0,
    lockstep: Steps = None,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Send the rows of a file as events and, later, as labels.

    In lockstep the platform and the services are started for the length of the replay where nobody runs them.
    """
    from services.cli.platform import prepare, running_platform
    from services.cli.replaying import Pace, Replay, refuse_expired
    from services.cli.script import labels_after_ms, read_rows, write_script
    from services.cli.serving import served
    from shared.contracts.pipeline import find_pipeline, load_pipeline

    declared = load_pipeline(find_pipeline(pipeline))
    delay_ms = _delay_ms(labels_after_ms(declared), labels_after)
    timeout_s = None if timeout is None else _duration("--timeout", timeout) / 1_000
    pace, now_ms = Pace(rate, speed), time.time_ns() // 1_000_000
    whole = write_script(read_rows(file, declared, start, limit), declared, delay_ms, start)
    script = without_unknown(whole, now_ms)
    alone = lockstep is None
    with nullcontext() if alone else running_platform():
        platform, schema_ids = prepare(declared)
        refuse_expired(platform.kafka, declared, script, now_ms)
        with (
            nullcontext(lambda: None) if alone else served(declared) as check,
            watching() as watch,
            _stepping(platform, declared, schema_ids, script, lockstep, timeout_s, check) as steps,
        ):
            kafka = platform.kafka
            summary = Replay(kafka, declared, schema_ids, script, pace, watch, steps, check).run()
    if as_json:
        typer.echo(json.dumps({**asdict(summary), "per_second": round(summary.per_second, 1)}))
        return
    typer.echo(
        f"{summary.events} events and {summary.labels} labels in {summary.seconds:.1f} s"
        f" ({summary.per_second:,.0f} records/s)"
    )


def without_unknown(script: "Script", now_ms: int) -> "Script":
    """The script without labels that come later than `now_ms`; says on standard error how many, and why.

    A record carries its order time, and the broker takes none that is an hour ahead of its clock.
    """
    from services.cli.script import known_by
    from shared.runtime.merge import LABEL

    known = known_by(script, now_ms)
    if left := len(script) - len(known):
        typer.echo(
            f"{left} of {int((script.kind == LABEL).sum())} labels are left out: they would come later than now,"
            " their outcome is not known yet; --labels-after says how long after its event a label comes",
            err=True,
        )
    return known


def _delay_ms(declared: int | None, given: str | None) -> int | None:
    """How long after its event a label is sent; None for no labels."""
    if given is None or given == "none":
        return declared if given is None else None
    return _duration("--labels-after", given)


def _duration(option: str, given: str) -> int:
    from shared.contracts.basics import parse_duration

    try:
        return parse_duration(given)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


@contextmanager
def _stepping(
    platform: PlatformSettings,
    declared: "Pipeline",
    schema_ids: dict[str, int],
    script: "Script",
    size: int | None,
    timeout_s: float | None,
    check: Callable[[], None],
) -> "Iterator[Lockstep | None]":
    """Lockstep by `size` events with the services that run; None where no size is given.

    `check` is called while they come up.
    """
    if size is None:
        yield None
        return
    from services.cli.lockstep import TIMEOUT_S, Lockstep, services_of

    limit_s, services = timeout_s or TIMEOUT_S, services_of(declared)
    with Lockstep.of(
        platform.kafka, declared, schema_ids, script, size, services, limit_s, beat=check
    ) as steps:
        yield steps


@contextmanager
def watching(label: str = "replaying") -> Iterator[Watch]:
    """A progress bar with an ETA on standard error when that is a terminal, else silence."""
    if not sys.stderr.isatty():
        yield lambda _sent, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        shown = 0.0

        def watch(sent: int, total: int) -> None:
            nonlocal shown
            if sent == total or time.monotonic() - shown > 0.1:
                shown = time.monotonic()
                bar.update(task, completed=sent, total=total)

        yield watch
