"""Composition root: inference for one pipeline."""

import argparse
import time
from collections.abc import Callable

import torch

from schemas import platform_schema
from services.inference.audit import AuditTrail
from services.inference.core.decide import ClassNames, Decisions
from services.inference.core.explaining import Explainer
from services.inference.core.fold import InferenceFold
from services.inference.core.lineup import Tolerance
from services.inference.core.registry import Registry
from services.inference.core.rows import Answering
from services.inference.metrics import ModelMetrics
from services.inference.models import Desk, Follower
from services.inference.roles import Roles
from services.inference.settings import InferenceSettings
from services.inference.unit import ScoringUnit, Targets, Told
from shared.codec.frame import frame_prefix
from shared.contracts.generated import features_schema
from shared.contracts.pipeline import Pipeline, find_pipeline, load_pipeline
from shared.models.announcement import Announcement
from shared.models.loading import LoadedModel, check_manifest, load_model
from shared.models.probe import Limits, Waiting, new_trial, probe
from shared.models.safety import ModelRefused, check_safetensors, sniff
from shared.models.signing import KeyFolder, LiveKeys
from shared.runtime.entry import RuntimeSettings, Start, guarded, prepare, run
from shared.runtime.stage import Stage
from shared.runtime.tables import Table
from shared.settings import PlatformSettings, home
from shared.store.artefacts import ArtefactStore
from shared.topics import ATTRIBUTIONS, AUDIT, FEATURES, MODELS, PREDICTIONS, SHADOWS


def build(start: Start, slot: int, settings: InferenceSettings) -> Stage:
    """The stage, with the follower of models.v1 under way."""
    pipeline = start.pipeline
    source = _table(start, FEATURES.of(pipeline.name), features_schema(pipeline))
    prediction = platform_schema("prediction")
    targets = Targets(
        _table(start, PREDICTIONS.of(pipeline.name), prediction),
        _table(start, SHADOWS.of(pipeline.name), prediction),
        _table(start, ATTRIBUTIONS.of(pipeline.name), platform_schema("attribution")),
    )
    share = settings.attribution_share
    explainer = Explainer(share, pipeline.feature_names) if share else None
    fold = InferenceFold(
        pipeline.feature_names,
        _answering(pipeline),
        pipeline.model.name,
        time.thread_time,
        explainer,
        Tolerance.of(pipeline.policy.rollback),
    )
    metrics = ModelMetrics.on(start.metrics)
    desk = Desk()
    roles = Roles(
        registry=Registry(
            pipeline.model.name, pipeline.feature_fingerprint, LiveKeys(KeyFolder.of(settings.keys))
        ),
        prove=_prover(start, settings),
        recent=lambda: fold.recent,
        tell=_audit(start, slot),
        publish=desk.publish,
        metrics=metrics,
        wait_s=settings.artefact_wait_s,
        memory_bytes=settings.models_memory_bytes,
        positive=_positive(pipeline),
    )
    models = _table(start, MODELS.of(pipeline.name), platform_schema("model"))
    follower = Follower(start.platform.kafka, models, roles, desk)
    follower.start()

    told = Told(desk.report, metrics.unexplained.inc)

    def refresh() -> None:
        taken = follower.take()
        if taken.lineup is not None:
            fold.obey(taken.lineup)
        metrics.offset.set(taken.offset)

    return Stage(
        pipeline.name,
        "inference",
        "inference",
        (source.topic,),
        lambda _: ScoringUnit(source, targets, pipeline.partitions, fold, told),
        compression="none",
        stateless=True,
        refresh=refresh,
    )


def _answering(pipeline: Pipeline) -> Answering:
    decisions = pipeline.model.decisions
    words = (
        Decisions([(d.label, d.start) for d in decisions]) if decisions else ClassNames(pipeline.class_names)
    )
    return Answering(words, labelled=pipeline.label is not None)


def _positive(pipeline: Pipeline) -> int:
    label = pipeline.label
    index = None if label is None else label.class_index(label.positive)
    return 1 if index is None else index


def _table(start: Start, topic: str, schema: dict[str, object]) -> Table:
    return Table.of(topic, start.schema_ids[topic], schema)


def _audit(start: Start, slot: int) -> AuditTrail:
    topic = AUDIT.of(start.pipeline.name)
    return AuditTrail(start.platform.kafka, topic, frame_prefix(start.schema_ids[topic]), f"inference-{slot}")


def _prover(start: Start, settings: InferenceSettings) -> Callable[[Announcement, int], LoadedModel]:
    store = ArtefactStore(start.platform.artefacts_url)
    pipeline = start.pipeline
    fingerprint, names, classes = pipeline.feature_fingerprint, pipeline.feature_names, pipeline.class_count
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    limits = Limits(memory_bytes=settings.model_memory_bytes, row_seconds=settings.model_row_seconds)
    waiting = Waiting()

    def prove(said: Announcement, room: int) -> LoadedModel:
        artefact = store.get(said.digest)
        # What can be said without running it is said first: a trial costs seconds.
        check_manifest(artefact.manifest, fingerprint, names, classes)
        asked = artefact.manifest.budget.memory_bytes
        if asked > room:
            raise ModelRefused(
                "resources.memory", f"asks for {asked} bytes, {room} are left beside the others"
            )
        for name, data in artefact.files.items():
            (check_safetensors if name.endswith(".safetensors") else sniff)(data)
        probe(artefact, fingerprint, limits, home() / "proofs", waiting if settings.spare else new_trial)
        if settings.spare:
            waiting.prepare()
        return load_model(artefact, fingerprint, names, device, classes)

    return prove


def tuned(settings: RuntimeSettings, max_rows: int, max_delay_ms: int) -> RuntimeSettings:
    """The loop's settings with the pipeline's batch policy."""
    return settings.model_copy(update={"max_records": max_rows, "poll_timeout_s": max_delay_ms / 1000})


def main() -> None:
    """Run until a signal asks to stop."""
    parser = argparse.ArgumentParser(prog="millrace-inference")
    parser.add_argument("--pipeline", required=True, help="name of a folder below schemas/")
    parser.add_argument("--slot", type=int, default=0, help="this worker's number")
    arguments = parser.parse_args()
    guarded(lambda: _serve(arguments.pipeline, arguments.slot))


def _serve(name: str, slot: int) -> None:
    settings = InferenceSettings()
    pipeline = load_pipeline(find_pipeline(name))
    start = prepare(pipeline, PlatformSettings())
    batch = pipeline.policy.batch
    runtime = tuned(settings.runtime, batch.max_rows, batch.max_delay_ms)
    run(start, build(start, slot, settings), slot, runtime)


if __name__ == "__main__":
    main()
