"""`millrace demo`: the whole path on this machine, from a bare clone to a summary, in a few minutes.

Card payments of sixty days, generated with a seed: the first part is replayed and a first model trained on
it and announced; the rest goes through at full speed; then payments of this moment come in at a steady rate.
Then loan applications whose world changes at a known event, with nobody there but the loop: see `demo_loop`.
"""

import enum
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from services.cli.journey import Journey
    from services.cli.script import Script

TRAINED_ON = 0.6


class Part(enum.StrEnum):
    """One of the two parts."""

    PAYMENTS = "payments"
    CHANGE = "change"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


@dataclass(slots=True)
class _Teller:
    """Says what is going on, on stderr, so that stdout holds the summary alone."""

    started: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        typer.echo(f"[{time.monotonic() - self.started:5.1f} s] {text}", err=True)

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Any]:
        from services.cli.replay import watching

        with watching(what) as watch:
            yield lambda count: watch(count, total)
        self.say(f"{what}: {total}")


def demo(
    customers: Annotated[
        int, typer.Option(help="Customers to generate; about 115 payments each.", min=50)
    ] = 1_000,
    rate: Annotated[float, typer.Option(help="Events a second of the live part.", min=1.0)] = 1_000.0,
    seconds: Annotated[float, typer.Option(help="Length of the live part.", min=1.0)] = 10.0,
    seed: Annotated[
        int, typer.Option(help="The same seed generates the same payments and applications.")
    ] = 7,
    events: Annotated[
        int, typer.Option(help="Loan applications; the world changes half way.", min=2_000)
    ] = 6_000,
    live: Annotated[
        bool, typer.Option("--live", help="The applications at --pace, not in lockstep: the clock counts.")
    ] = False,
    pace: Annotated[float, typer.Option(help="Applications a second with --live.", min=1.0)] = 60.0,
    plot: Annotated[
        Path | None, typer.Option(help="PNG of the change; demo.png in the data folder by default.")
    ] = None,
    only: Annotated[Part | None, typer.Option(help="One part alone.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as one JSON object.")] = False,
) -> None:
    """Start everything, send generated events through it, print what came out, stop everything."""
    from services.cli.changing import Change
    from services.cli.demo_loop import change_lines, run_change
    from services.cli.platform import running_platform
    from shared.settings import home

    teller = _Teller()
    teller.say("starting Kafka, the schema registry and Redis")
    summary: dict[str, Any] = {}
    with running_platform():
        if only != Part.CHANGE:
            summary = _run(teller, customers, rate, seconds, seed)
        if only != Part.PAYMENTS:
            change = Change(events=events, at=events // 2, seed=seed)
            name = f"applications-demo-{time.time_ns() // 1_000_000}"
            picture = plot or home() / "demo.png"
            summary["change"] = run_change(name, change, pace if live else None, picture, teller.say)
    told = [*(_lines(summary) if "events" in summary else [])]
    told += [*([""] if told else []), *change_lines(summary["change"])] if "change" in summary else []
    typer.echo(json.dumps(summary) if as_json else "\n".join(told))
    _judge(summary)


def _judge(summary: dict[str, Any]) -> None:
    """Exit 1 where a promise was not kept."""
    missing = summary.get("change", {}).get("missing", [])
    if missing:
        typer.echo(
            f"demo: the loop did not close: {', '.join(missing)} after the change; "
            f"see `millrace loop report {summary['change']['pipeline']}`",
            err=True,
        )
    if missing or not summary.get("exactly_once", True):
        raise typer.Exit(1)


def _run(teller: _Teller, customers: int, rate: float, seconds: float, seed: int) -> dict[str, Any]:
    import numpy as np

    from services.cli.journey import Journey
    from services.cli.payments import World, epoch_s, payments
    from services.cli.script import write_script
    from services.cli.variants import write_variant
    from shared.contracts.pipeline import find_pipeline
    from shared.runtime.merge import EVENT
    from shared.settings import home

    world = World(customers=customers, terminals=2 * customers, seed=seed)
    frame = payments(world)
    teller.say(f"generated {frame.height} payments")
    name = f"fraud-demo-{int(time.time())}"
    epoch = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch_s(world, time.time())))
    folder = write_variant(find_pipeline("fraud"), home() / "declared", name, epoch=epoch)
    journey = Journey(folder)
    label = journey.pipeline.label
    script = write_script(frame, journey.pipeline, None if label is None else label.horizon_ms)
    events = np.flatnonzero(script.kind == EVENT)
    border = int(events[int(TRAINED_ON * events.size)])
    return _through(teller, journey, script, border, int(events[-1]) + 1, rate, seconds)


def _through(
    teller: _Teller, journey: "Journey", script: "Script", border: int, end: int, rate: float, seconds: float
) -> dict[str, Any]:
    import numpy as np

    from schemas import platform_schema
    from services.cli.latency import LatencyProbe, percentiles
    from services.cli.live import send_live
    from services.cli.models import train_and_announce
    from services.cli.script import cut
    from shared.runtime.merge import EVENT
    from shared.runtime.tables import Table
    from shared.topics import FEATURES, PREDICTIONS

    predictions, features = journey.topic(PREDICTIONS.name), journey.topic(FEATURES.name)
    first, rest = cut(script, 0, border), cut(script, border, end)
    count = {part: int((s.kind == EVENT).sum()) for part, s in (("first", first), ("rest", rest))}
    total = count["first"] + count["rest"]
    with journey.replaying(first), journey:
        teller.say("services started")
        with teller.counting("features of the first part", count["first"]) as watch:
            journey.wait_for(features, count["first"], progress=watch)
        model = train_and_announce(str(journey.folder), 1_000, 60.0, 0)
        teller.say(f"trained and announced version {model['version']} on {model['rows']} labelled payments")
        with teller.counting("predictions of the first part", count["first"]) as watch:
            journey.wait_for(predictions, count["first"], progress=watch)
        began = time.monotonic()
        with journey.replaying(rest), teller.counting("predictions of the rest", total) as watch:
            journey.wait_for(predictions, total, progress=watch)
        through = time.monotonic() - began
        live = script.events.take(np.arange(min(int(rate * seconds), script.events.rows)))
        live = live.having(**{journey.pipeline.event.id: _fresh_ids(live.rows)})
        table = Table.of(predictions, journey.schema_ids[predictions], platform_schema("prediction"))
        with LatencyProbe(journey.platform.kafka, table) as probe:
            sent = send_live(journey, live, rate)
            deadline = time.monotonic() + 30.0
            while probe.count < live.rows and time.monotonic() < deadline:
                time.sleep(0.05)
        teller.say(f"live: {live.rows} payments at {rate:.0f} a second")
    latency = percentiles(probe.milliseconds(sent.sent_ns, sent.first_offset))
    return _summary(journey, script, rest, live.rows, through, latency, model)


def _fresh_ids(count: int) -> Any:
    from shared.codec.batch import Strings

    return Strings.of([f"live-{i}".encode() for i in range(count)])


def _summary(
    journey: "Journey",
    script: "Script",
    rest: "Script",
    live: int,
    through: float,
    latency: dict[str, float],
    model: dict[str, Any],
) -> dict[str, Any]:
    import numpy as np

    from schemas import platform_schema
    from services.cli.checking import exactly_once, texts
    from services.retrainer.core.metrics import roc_auc
    from shared.runtime.merge import EVENT
    from shared.topics import PREDICTIONS

    rows = journey.rows(
        journey.topic(PREDICTIONS.name), platform_schema("prediction"), ["event_id", "score", "label"]
    )
    found = texts(rows["event_id"].strings)
    sent = texts(script.events[journey.pipeline.event.id].strings)
    sent_rows = script.row[script.kind == EVENT]
    once = exactly_once([*sent, *(f"live-{i}" for i in range(live))], found)
    scores = dict(zip(found, rows["score"].array.tolist(), strict=True))
    tested = rest.row[rest.kind == EVENT]
    labels = script.labels
    auc = None
    if labels is not None and journey.pipeline.label is not None:
        truth = labels[journey.pipeline.label.field].array[tested] == 1
        auc = round(roc_auc(truth, np.array([scores[sent[row]] for row in tested])), 4)
    categories = texts(rows["label"].strings)
    return {
        "pipeline": journey.pipeline.name,
        "events": int(sent_rows.size) + live,
        "predictions": len(found),
        "exactly_once": once.holds,
        "check": str(once),
        "throughput": {"events": int(tested.size), "events_per_second": round(tested.size / through)},
        "latency": {"events": live, **latency},
        "model": {"version": model["version"], "digest": model["digest"], "auc": auc},
        "labels": {name: categories.count(name) for name in sorted(set(categories))},
        "restarts": sum(journey.supervisor.restarts().values()),
    }


def _lines(summary: dict[str, Any]) -> list[str]:
    speed, latency, model = summary["throughput"], summary["latency"], summary["model"]
    return [
        f"events        {summary['events']}",
        f"predictions   {summary['predictions']} ({', '.join(f'{n} {k}' for k, n in summary['labels'].items())})",
        f"check         {summary['check']}",
        f"throughput    {speed['events_per_second']} events/s over {speed['events']} payments",
        f"latency       {', '.join(f'{k} {v}' for k, v in latency.items())}, event to committed prediction",
        f"model         version {model['version']}, AUC {model['auc']} on payments it had not seen",
    ]
