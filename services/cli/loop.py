"""`millrace loop`: what the loop did, in events; and the loop on a known stream."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from services.cli.chronicle import Chronicle
    from services.cli.story import Mark, Reign, Story

Name = Annotated[str, typer.Argument(help="A pipeline, by name or folder.")]
Window = Annotated[int, typer.Option(help="Outcomes in a trailing figure.", min=20)]
Plot = Annotated[Path | None, typer.Option("--plot", help="Draw it into this PNG file.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


def register(app: typer.Typer) -> None:
    """Add the group `loop`."""
    group = typer.Typer(no_args_is_help=True, help="What the loop did, measured in events.")
    group.command("report")(report)
    group.command("elec2")(elec2)
    app.add_typer(group, name="loop")


def report(
    pipeline: Name,
    begin: Annotated[str | None, typer.Option("--from", help="First event: its number or a time.")] = None,
    end: Annotated[
        str | None, typer.Option("--to", help="Behind the last event: a number or a time.")
    ] = None,
    window: Window = 1_000,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Every alarm, training, verdict and promotion, with the event at which it took effect."""
    from services.cli.chronicle import read_chronicle
    from services.cli.platform import running_platform
    from shared.contracts.pipeline import find_pipeline, load_pipeline
    from shared.kafka.registry import Registry, register_pipeline
    from shared.settings import PlatformSettings

    folder = Path(pipeline)
    declared = load_pipeline(folder if (folder / "pipeline.toml").is_file() else find_pipeline(pipeline))
    with running_platform():
        platform = PlatformSettings()
        with Registry(platform.registry) as registry:
            schema_ids = register_pipeline(registry, declared)
        chronicle = read_chronicle(platform, declared, schema_ids, window)
    story = chronicle.story(place(chronicle, begin) or 0, place(chronicle, end))
    if plot is not None:
        from services.cli.drawing import draw

        draw(story, plot)
    typer.echo(json.dumps(story_json(story)) if as_json else "\n".join(lines(story)))


def elec2(
    file: Annotated[
        Path | None, typer.Argument(help="The file of half hours; ../shared/data/elec2.csv.gz by default.")
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="The file's columns alone, no means over a day.")
    ] = False,
    step: Annotated[int, typer.Option(help="Events a step.", min=1)] = 500,
    limit: Annotated[int | None, typer.Option(help="At most so many rows.", min=300)] = None,
    out: Annotated[Path, typer.Option(help="Write the result there.")] = Path("loop-elec2.json"),
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Elec2 with outcomes 48 events late, from a cold start, with the loop and without; 1 below the floor."""
    from services.cli.loop_elec2 import FILE, outcome_json, outcome_lines, run_both
    from services.cli.platform import running_platform
    from shared.errors import Refused

    source = file or FILE
    if not source.is_file():
        raise Refused(f"there is no file {source}; name yours: millrace loop elec2 FILE")
    with running_platform():
        outcome = run_both(source, not raw, step, limit, lambda text: typer.echo(text, err=True))
    told = outcome_json(outcome)
    out.write_text(json.dumps(told, indent=2) + "\n")
    if plot is not None:
        from services.cli.drawing import draw

        draw(outcome.on, plot)
    typer.echo(json.dumps(told) if as_json else "\n".join(outcome_lines(outcome)))
    if limit is None and not outcome.holds:
        raise typer.Exit(1)


def place(chronicle: "Chronicle", given: str | None) -> int | None:
    """The event that `--from` or `--to` names."""
    if given is None:
        return None
    if given.isdecimal():
        return int(given)
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(given)
    except ValueError as error:
        raise typer.BadParameter(f"{given}: neither an event's number nor a time") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return chronicle.telling.index_at(round(moment.timestamp() * 1_000) - 1)


def story_json(story: "Story") -> dict[str, Any]:
    """The story as one JSON value; figures that are not known are null."""
    told = {
        "pipeline": story.pipeline,
        "events": story.events,
        "labelled": story.labelled,
        "first": story.first,
        "last": story.last,
        "metric": story.metric,
        "window": story.window,
        "accuracy": story.figures.get("accuracy"),
        "roc_auc": story.figures.get("roc_auc"),
        "log_loss": story.figures.get("log_loss"),
    }
    return told | {
        "counts": story.counts,
        "marks": [asdict(mark) for mark in story.marks],
        "versions": [asdict(reign) for reign in story.reigns],
        "trail": [list(point) for point in story.trail],
    }


def lines(story: "Story") -> list[str]:
    """The story for people."""
    figures = ", ".join(f"{name} {value:.4f}" for name, value in story.figures.items())
    head = (
        f"{story.pipeline}: {story.events} events, {story.labelled} outcomes; {figures or 'no figures yet'}"
    )
    table = [f"{'event':>9}  {'outcome':>8}  {story.metric + ' before':>15}  what"]
    return [
        head,
        "",
        *table,
        *(_mark_line(mark) for mark in story.marks),
        "",
        *(_reign_line(each) for each in story.reigns),
    ]


def _mark_line(mark: "Mark") -> str:
    index = "-" if mark.index is None else str(mark.index)
    sequence = "-" if mark.sequence < 0 else str(mark.sequence)
    figure = "-" if mark.figure is None else f"{mark.figure:.4f}"
    return f"{index:>9}  {sequence:>8}  {figure:>15}  {mark.what}: {mark.text}"


def _reign_line(reign: "Reign") -> str:
    figures = ", ".join(f"{name} {value:.4f}" for name, value in reign.figures.items())
    since = f"from event {reign.first}" if reign.first is not None else "never in force"
    kind = f" {reign.kind}" if reign.kind else ""
    answered = f"{reign.events} events answered" + (f", {figures}" if figures else "")
    return f"version {reign.version}{kind} ({reign.state or 'unknown'}): {since}, {answered}"
