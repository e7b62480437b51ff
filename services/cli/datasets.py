"""`millrace datasets`: list, show, diff, rebuild. Exit: 0 done; 1 refused, or a rebuild differs; 75 later."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.models import Json, Name, _fail, _guarded, _print_json, _start

if TYPE_CHECKING:
    from services.retrainer.core.recipe import DatasetManifest
    from services.retrainer.kept import Kept

_DIFFERS = 1
Id = Annotated[str, typer.Argument(help="A dataset's id, or its first digits.")]
OptionalId = Annotated[str, typer.Argument(help="A dataset's id or its first digits; the newest by default.")]


def register(app: typer.Typer) -> None:
    """Add the group `datasets`."""
    group = typer.Typer(no_args_is_help=True, help="What models were trained on.")
    group.command("list")(_list)
    group.command("show")(_show)
    group.command("diff")(_diff)
    group.command("rebuild")(_rebuild)
    app.add_typer(group, name="datasets")


def _list(pipeline: Name, as_json: Json = False) -> None:
    """Every dataset that was made for the pipeline, oldest cut-off first."""
    rows = _guarded(lambda: [_line(each) for each in _all(_kept(pipeline))], as_json)
    if as_json:
        _print_json({"ok": True, "datasets": rows})
        return
    for row in rows:
        rowed = f"to {row['cut_off']:>9}  {row['events']:>8} events  {row['segments']:>3} segments"
        typer.echo(f"{row['id'][:12]}  {rowed}  root {row['root'][:12]}")
    if not rows:
        typer.echo(f"no dataset yet; `millrace run {pipeline}` makes them as it retrains", err=True)


def _show(pipeline: Name, dataset: OptionalId = "", as_json: Json = False) -> None:
    """A dataset's manifest: where its rows came from, what they hold, what they hash to."""
    manifest = _guarded(lambda: _one(_kept(pipeline), dataset), as_json)
    said = {"id": manifest.id, **manifest.model_dump(mode="json")}
    if as_json:
        _print_json({"ok": True, "dataset": said})
        return
    import json

    typer.echo(json.dumps(said, indent=2))


def _diff(pipeline: Name, before: Id, after: OptionalId = "", as_json: Json = False) -> None:
    """What differs between two datasets, one field a line."""
    from services.retrainer.core.recipe import differences

    def work() -> list[dict[str, Any]]:
        kept = _kept(pipeline)
        found = differences(_one(kept, before), _one(kept, after))
        return [{"field": each.field, "before": each.before, "after": each.after} for each in found]

    found = _guarded(work, as_json)
    if as_json:
        _print_json({"ok": True, "differences": found})
        return
    for each in found:
        typer.echo(f"{each['field']}: {each['before']} -> {each['after']}")
    if not found:
        typer.echo("the same dataset")


def _rebuild(pipeline: Name, dataset: OptionalId = "", as_json: Json = False) -> None:
    """Read the log again and compare: every segment must come out byte for byte as it was sealed."""
    done = _guarded(lambda: rebuilt(pipeline, dataset), as_json)
    if done["differences"]:
        first = done["differences"][0]
        _fail(f"{done['id']} is not what the log gives: {first}", as_json, _DIFFERS)
    if as_json:
        _print_json({"ok": True, **done})
    else:
        typer.echo(
            f"{done['id']}: {done['segments']} segments, {done['bytes']} bytes, identical to what the log gives"
        )


def rebuilt(pipeline: str, dataset: str) -> dict[str, Any]:
    """The dataset's id and size, and every difference to what the log gives now."""
    from services.retrainer.datasets import rebuild
    from services.retrainer.kept import kept_of
    from services.retrainer.ledger import KafkaLedger

    start = _start(pipeline)
    kept = kept_of(start.platform.artefacts_url, start.pipeline.name)
    manifest = _one(kept, dataset)
    ledger = KafkaLedger.of(start.platform.kafka, start.pipeline, start.schema_ids)
    return {
        "id": manifest.id,
        "root": manifest.root,
        "segments": len(manifest.segments),
        "bytes": sum(each.bytes for each in manifest.segments),
        "differences": rebuild(manifest, ledger, kept),
    }


def _kept(pipeline: str) -> "Kept":
    """Where the pipeline's datasets lie; it need not be up for them to be read."""
    from pathlib import Path

    from services.retrainer.kept import kept_of
    from shared.contracts.pipeline import find_pipeline, load_pipeline
    from shared.settings import PlatformSettings

    folder = Path(pipeline)
    declared = load_pipeline(folder if (folder / "pipeline.toml").is_file() else find_pipeline(pipeline))
    return kept_of(PlatformSettings().artefacts_url, declared.name)


def _all(kept: "Kept") -> "list[DatasetManifest]":
    """Every manifest, by cut-off."""
    found = [kept.manifest(each) for each in kept.datasets()]
    return sorted(found, key=lambda manifest: (manifest.cut_off, manifest.id))


def _one(kept: "Kept", dataset: str) -> "DatasetManifest":
    """The manifest of an id or its first digits; the newest without one."""
    from shared.errors import Refused

    if dataset:
        return kept.manifest(dataset)
    found = _all(kept)
    if not found:
        raise Refused("no dataset has been made yet")
    return found[-1]


def _line(manifest: "DatasetManifest") -> dict[str, Any]:
    return {
        "id": manifest.id,
        "cut_off": manifest.cut_off,
        "first": manifest.segments[0].first,
        "events": manifest.counts["rows"]["events"],
        "rows": manifest.counts["rows"]["all"],
        "classes": manifest.counts["class"],
        "segments": len(manifest.segments),
        "root": manifest.root,
        "content": manifest.content,
        "code": manifest.code,
    }
