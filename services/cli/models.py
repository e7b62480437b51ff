"""`millrace models`: train, list, verify, and the controller's commands (in `commanding`).

Exit codes: 0 done, 1 refused, 2 usage, 75 try again later.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from services.retrainer.core.train import Spec
    from services.retrainer.releases import Announced
    from shared.contracts.pipeline import Pipeline
    from shared.models.signing import TrustedKeys
    from shared.runtime.entry import Start
    from shared.store.artefacts import ArtefactStore

_REFUSED, _USAGE, _LATER = 1, 2, 75
T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]
Name = Annotated[str, typer.Argument(help="A pipeline.")]


def register(app: typer.Typer) -> None:
    """Add the group `models`."""
    from services.cli import commanding

    group = typer.Typer(no_args_is_help=True, help="Train, list, govern and verify models.")
    group.command("train")(_train)
    group.command("list")(_list)
    group.command("verify")(_verify)
    commanding.add_to(group)
    app.add_typer(group, name="models")


def _train(
    pipeline: Name,
    min_rows: Annotated[int, typer.Option(help="Labelled rows to wait for.", min=1)] = 1000,
    timeout: Annotated[str, typer.Option(help="How long to wait: 30s, 5m.")] = "60s",
    seed: Annotated[int, typer.Option(help="The same rows and seed give the same model.", min=0)] = 0,
    wait: Annotated[bool, typer.Option("--wait", help="In a loop: wait for the run's end.")] = False,
    actor: Annotated[str, typer.Option(help="In a loop: who asks; your login by default.")] = "",
    reason: Annotated[str, typer.Option(help="In a loop: why.")] = "",
    as_json: Json = False,
) -> None:
    """Train a model on what the topics hold, put it into the store and announce it.

    Where the pipeline declares [policy.retrain] its retrainer trains, and the controller judges.
    """
    from services.cli import commanding
    from shared.contracts.basics import parse_duration

    try:
        timeout_s = parse_duration(timeout) / 1000
    except ValueError as error:
        _fail(f"--timeout {timeout}: {error}", as_json, _USAGE)
    if _guarded(lambda: _declared(pipeline).loops, as_json):
        commanding.train(pipeline, wait, timeout_s, actor, reason, as_json)
        return
    done = _guarded(lambda: train_and_announce(pipeline, min_rows, timeout_s, seed), as_json)
    if as_json:
        _print_json({"ok": True, **done})
    else:
        figures = ", ".join(f"{name} {value:.4f}" for name, value in done["metrics"].items())
        typer.echo(f"{done['name']} version {done['version']}: {done['rows']} rows, {figures}")
        typer.echo(f"announced at offset {done['offset']} as {done['digest']}")


def train_and_announce(pipeline: str, min_rows: int, timeout_s: float, seed: int) -> dict[str, Any]:
    """Train, put, announce; gives name, version, sequence, digest, offset, rows and metrics.

    Raises:
        Refused: the pipeline has more than two classes, or its topics hold too little to learn from.
    """
    import time

    from services.retrainer.core.announce import announce, next_numbers
    from services.retrainer.core.train import train
    from services.retrainer.gather import Gatherer
    from services.retrainer.releases import ModelsTopic
    from shared.kafka.admin import ensure_topics
    from shared.models.signing import KeyFolder
    from shared.store.artefacts import ArtefactStore

    _refuse_classes(_declared(pipeline))
    start = _start(pipeline)
    kafka, declared = start.platform.kafka, start.pipeline
    ensure_topics(kafka, declared)
    data = Gatherer(kafka, declared, start.schema_ids).wait(min_rows, timeout_s)
    artefact = train(data, spec_of(declared), seed)
    ArtefactStore(start.platform.artefacts_url).put(artefact)
    topic = ModelsTopic(kafka, declared, start.schema_ids)
    numbers = next_numbers(declared.model.name, (each.announcement for each in topic.read()))
    key = KeyFolder.of().signer()
    said = announce(artefact, declared.model.name, numbers, key, time.time_ns() // 1_000_000)
    return {
        "name": said.name,
        "version": said.version,
        "sequence": said.sequence,
        "digest": said.digest,
        "offset": topic.write(said),
        "rows": len(data.labels),
        "metrics": artefact.manifest.metrics,
    }


def _refuse_classes(pipeline: "Pipeline") -> None:
    """Outcomes are read off the topics as positive or not; the retrainer's datasets tell more apart."""
    from shared.errors import Refused

    if pipeline.class_count > 2:
        raise Refused(
            f"{pipeline.name} has {pipeline.class_count} classes, and only a loop trains models of more than two: "
            f"add [policy.retrain] to pipeline.toml, then `millrace run {pipeline.name}` trains"
        )


def spec_of(pipeline: "Pipeline") -> "Spec":
    """How the pipeline wants its model trained."""
    from services.retrainer.core.train import Spec
    from shared.models.manifest import Linear, Mlp

    inputs, classes = len(pipeline.feature_names), pipeline.class_count
    if pipeline.model.architecture == "mlp":
        return Spec(Mlp(inputs=inputs, hidden=pipeline.model.hidden, classes=classes))
    return Spec(Linear(inputs=inputs, classes=classes))


def _list(pipeline: Name, as_json: Json = False) -> None:
    """Every version and its state; then every announcement on the models topic, oldest first."""
    from services.cli import commanding

    rows = _guarded(lambda: listed(pipeline), as_json)
    versions = _guarded(lambda: commanding.versions(pipeline), as_json)
    if as_json:
        _print_json({"ok": True, "models": rows, **versions})
        return
    commanding.print_versions(versions)
    for row in rows:
        state = "ok" if row["trusted"] and row["stored"] else row["problem"]
        what = f"{row['name']} {row['version']}  {row['state']}  {row['kind']}"
        typer.echo(f"{row['offset']:>6}  {what}  {row['digest'][:12]}  {state}")
    if not rows:
        typer.echo(f"nothing announced yet; `millrace models train {pipeline}` makes a first model", err=True)


def listed(pipeline: str) -> list[dict[str, Any]]:
    """The announcements as JSON values, with whether they are trusted here and in the store."""
    from services.retrainer.releases import ModelsTopic
    from shared.models.signing import KeyFolder
    from shared.store.artefacts import ArtefactStore

    start = _start(pipeline)
    store = ArtefactStore(start.platform.artefacts_url)
    stored = set(store.digests())
    trusted = KeyFolder.of().trusted()
    topic = ModelsTopic(start.platform.kafka, start.pipeline, start.schema_ids)
    return [_row(each, trusted, stored) for each in topic.read()]


def _row(each: "Announced", trusted: "TrustedKeys", stored: set[str]) -> dict[str, Any]:
    from shared.models.safety import ModelRefused
    from shared.models.signing import verify

    said, problem = each.announcement, ""
    try:
        said.check()
        verify(said, trusted, each.timestamp)
    except ModelRefused as refused:
        problem = str(refused)
    there = said.digest in stored
    return {
        "offset": each.offset,
        "name": said.name,
        "version": said.version,
        "sequence": said.sequence,
        "kind": said.kind,
        "state": said.state,
        "share": said.share,
        "reason": said.reason,
        "digest": said.digest,
        "feature_fingerprint": said.feature_fingerprint,
        "issued_at": said.issued_at,
        "expires_at": said.expires_at,
        "key_id": said.key_id,
        "trusted": not problem,
        "stored": there,
        "problem": problem or ("" if there else "artefact.missing: not in the artefact store"),
    }


def _verify(
    digest: Annotated[str, typer.Argument(help="A digest, or the first digits of one that is stored.")],
    as_json: Json = False,
) -> None:
    """Check an artefact's bytes, weights and golden samples, and run it under its declared limits."""
    done = _guarded(lambda: verified(digest), as_json)
    if as_json:
        _print_json({"ok": True, **done})
    else:
        typer.echo(f"{done['digest']}: ok, {done['architecture']['name']} over {done['features']} features")


def verified(digest: str) -> dict[str, Any]:
    """Everything that a worker checks of an artefact, for the features and classes that it names itself."""
    from shared.models.loading import load_model
    from shared.models.probe import Limits, probe
    from shared.settings import PlatformSettings
    from shared.store.artefacts import ArtefactStore

    store = ArtefactStore(PlatformSettings().artefacts_url)
    artefact = store.get(_whole(store, digest))
    manifest = artefact.manifest
    classes = manifest.architecture.classes
    load_model(artefact, manifest.feature_fingerprint, manifest.feature_names, classes=classes)
    proof = probe(artefact, manifest.feature_fingerprint, Limits())
    return {
        "digest": artefact.digest,
        "architecture": manifest.architecture.model_dump(mode="json"),
        "dtype": manifest.dtype,
        "features": len(manifest.feature_names),
        "metrics": manifest.metrics,
        "dataset": manifest.dataset,
        "row_seconds": proof.row_seconds,
    }


def _whole(store: "ArtefactStore", digest: str) -> str:
    """The stored digest that begins so; the text itself where none or several do."""
    found = [each for each in store.digests() if each.startswith(digest)]
    return found[0] if digest and len(found) == 1 else digest


def _declared(pipeline: str) -> "Pipeline":
    from shared.contracts.pipeline import find_pipeline, load_pipeline

    folder = Path(pipeline)
    return load_pipeline(folder if (folder / "pipeline.toml").is_file() else find_pipeline(pipeline))


def _start(pipeline: str) -> "Start":
    from shared.runtime.entry import prepare
    from shared.settings import PlatformSettings

    start = prepare(_declared(pipeline), PlatformSettings())
    start.registry.close()  # the ids are known, and nothing more is asked of it
    return start


def _guarded(work: Callable[[], T], as_json: bool) -> T:
    from shared.errors import Fatal, Refused, Retry

    try:
        return work()
    except Refused as error:
        _fail(str(error), as_json, _REFUSED)
    except (Retry, Fatal) as error:
        _fail(f"{error}; is the stack up? `millrace status` says", as_json, _LATER)


def _fail(message: str, as_json: bool, code: int) -> NoReturn:
    if as_json:
        _print_json({"ok": False, "error": message})
    else:
        typer.echo(message, err=True)
    raise typer.Exit(code)


def _print_json(value: dict[str, Any]) -> None:
    import json

    typer.echo(json.dumps(value, indent=2))
