"""`millrace features get`: the newest feature vector of a key, as the Redis view has it."""

import json
from datetime import UTC, datetime
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the group `features`."""
    group = typer.Typer(no_args_is_help=True, help="Look at features.")
    group.command("get")(get)
    group.callback()(_group)
    app.add_typer(group, name="features")


def _group() -> None:
    """A group even while it has one command."""


def get(
    entity: Annotated[str, typer.Argument(help="The event key, such as a customer's id.")],
    pipeline: Annotated[str, typer.Option(help="The pipeline.")] = "fraud",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show the newest vector of ENTITY and the source offset that it stands for; exit code 1 if there is none."""
    from shared.contracts.pipeline import find_pipeline, load_pipeline
    from shared.settings import PlatformSettings
    from shared.store.view import FeatureView

    declared = load_pipeline(find_pipeline(pipeline))
    address = PlatformSettings().redis.url.get_secret_value()
    entry = FeatureView(address, declared.name, declared.feature_names).read(entity)
    if entry is None:
        typer.echo(f"no vector of {entity!r} in {pipeline}: no event of this key has been seen", err=True)
        raise typer.Exit(1)
    values = dict(zip(declared.feature_names, entry.values, strict=True))
    if as_json:
        place = {"source_partition": entry.source_partition, "source_offset": entry.source_offset}
        times = {"event_time": entry.event_time, "order_time": entry.order_time}
        typer.echo(json.dumps({"entity": entity, **place, **times, "features": values}))
        return
    when = datetime.fromtimestamp(entry.event_time / 1_000, UTC).isoformat()
    typer.echo(f"{entity} at {when}, events.v1/{entry.source_partition} offset {entry.source_offset}")
    for name, value in values.items():
        typer.echo(f"  {name:<40} {value:g}")
