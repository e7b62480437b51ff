"""`millrace truth`: payments through Kafka, every feature on the topic against published values.

The raw file's payments go through ingest, all feature stages and inference on real topics; then the features
topic is read and compared with the truth files, and the predictions with the accepted events.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import polars as pl

    from services.cli.journey import Journey

RAW = "../shared/data/fraud_raw_2018-04_07.csv.gz"
TRUTH = (
    "../shared/data/fraud_features_2018-04-01_07.csv.gz",
    "../shared/data/fraud_features_2018-07-25_31.csv.gz",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(truth)


@dataclass(frozen=True, slots=True)
class Report:
    """What was seen."""

    events: int
    rows: int
    columns: int
    mismatches: int
    examples: tuple[str, ...]
    predictions: str
    predictions_hold: bool
    hashes: int
    seconds: float
    digest: str

    @property
    def holds(self) -> bool:
        """Everything as promised, over at least one row and column."""
        return bool(
            self.rows and self.columns and not self.mismatches and self.predictions_hold and not self.hashes
        )


def truth(
    raw: Annotated[
        Path | None, typer.Option(help="Raw payments, CSV; the demonstration file by default.")
    ] = None,
    truth: Annotated[
        list[Path] | None, typer.Option(help="Published features, CSV; several by repeating the option.")
    ] = None,
    pipeline: Annotated[str, typer.Option(help="The declared pipeline.")] = "fraud",
    partitions: Annotated[int, typer.Option(help="Partitions of each topic.", min=1)] = 4,
    workers: Annotated[int, typer.Option(help="Workers a service.", min=1)] = 1,
    limit: Annotated[int | None, typer.Option(help="At most so many payments.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Check every published feature value against the features topic; exit code 1 on any mismatch."""
    from services.cli.platform import running_platform
    from shared.errors import Refused

    raw = raw or Path(RAW)
    truths = truth or [Path(name) for name in TRUTH]
    missing = [str(path) for path in (raw, *truths) if not path.is_file()]
    if missing:
        raise Refused(f"{', '.join(missing)}: no such file; name yours: make truth RAW=... TRUTH=...")
    with running_platform():
        report = check(raw, truths, pipeline, partitions, workers, limit)
    for example in report.examples:
        typer.echo(f"mismatch: {example}")
    if as_json:
        typer.echo(
            json.dumps({name: getattr(report, name) for name in Report.__slots__} | {"ok": report.holds})
        )
    else:
        typer.echo(f"{report.events} events in {report.seconds:.0f} s; feature digest {report.digest}")
        typer.echo(f"predictions: {report.predictions}; {report.hashes} with another feature hash")
        typer.echo(f"rows {report.rows} columns {report.columns} mismatches {report.mismatches}")
    if not report.holds:
        raise typer.Exit(1)


def check(
    raw: Path, truths: list[Path], pipeline: str, partitions: int, workers: int, limit: int | None
) -> Report:
    """Run the payments through a copy of the pipeline under a name of its own, and compare."""
    import polars as pl

    from services.cli.checking import texts
    from services.cli.journey import Journey
    from services.cli.script import read_rows, write_script
    from services.cli.untrained import announce_untrained
    from services.cli.variants import write_variant
    from shared.contracts.pipeline import find_pipeline
    from shared.settings import home
    from shared.topics import FEATURES, PREDICTIONS

    name = f"{pipeline}-truth-{int(time.time())}"
    folder = write_variant(find_pipeline(pipeline), home() / "declared", name, partitions)
    services = {"ingest": workers, "features": workers, "inference": workers}
    journey = Journey(folder, services)
    declared = journey.pipeline
    frame = read_rows(raw, declared, 0, limit)
    script = write_script(frame, declared, None if declared.label is None else declared.label.horizon_ms)
    expected = frame.height
    announce_untrained(journey)

    def say(what: str) -> Callable[[int], None]:
        return lambda count: typer.echo(f"\r{what} {count} of {expected}", err=True, nl=False)

    started = time.monotonic()
    with journey.replaying(script), journey:
        journey.wait_for(journey.topic(FEATURES.name), expected, progress=say("features"))
        journey.wait_for(journey.topic(PREDICTIONS.name), expected, progress=say("predictions"))
    seconds = time.monotonic() - started
    published = pl.concat([pl.read_csv(path) for path in truths])
    if limit is not None:
        published = published.filter(
            pl.col(published.columns[0]).is_in(frame[published.columns[0]].implode())
        )
    sent = texts(script.events[declared.event.id].strings)
    return _compare(journey, sent, published, seconds)


def _compare(journey: "Journey", sent: list[str], published: "pl.DataFrame", seconds: float) -> Report:
    from schemas import platform_schema
    from services.cli.checking import compare_with_truth, exactly_once, matrix_of, texts
    from services.features.core.digest import vectors_digest
    from shared.contracts.generated import features_schema
    from shared.topics import FEATURES, PREDICTIONS

    names = list(journey.pipeline.feature_names)
    columns = ["event_id", "feature_hash", *(f"features.{name}" for name in names)]
    rows = journey.rows(journey.topic(FEATURES.name), features_schema(journey.pipeline), columns)
    ids, matrix = texts(rows["event_id"].strings), matrix_of(rows, names)
    answers = journey.rows(
        journey.topic(PREDICTIONS.name), platform_schema("prediction"), ["event_id", "feature_hash"]
    )
    answered = texts(answers["event_id"].strings)
    hashes = dict(zip(ids, rows["feature_hash"].array.tolist(), strict=True))
    told = answers["feature_hash"].array.tolist()
    other = sum(hashes.get(each) != value for each, value in zip(answered, told, strict=True))
    compared = compare_with_truth(ids, names, matrix, published)
    once = exactly_once(sent, answered)
    computed = exactly_once(sent, ids)
    return Report(
        events=len(sent),
        rows=compared.rows,
        columns=compared.columns,
        mismatches=compared.mismatches,
        examples=compared.examples,
        predictions=str(once),
        predictions_hold=once.holds and computed.holds,
        hashes=other,
        seconds=seconds,
        digest=vectors_digest(rows["event_id"].strings, matrix),
    )
