"""Composition root: one stage of one pipeline's feedback."""

import argparse

from schemas import platform_schema
from services.feedback.core.spec import JoinSpec
from services.feedback.metrics import JoinMetrics
from services.feedback.settings import FeedbackSettings
from services.feedback.unit import JoinTables, JoinUnit, label_table
from shared.contracts.generated import accepted_schema, features_schema, joined_schema, labeled_schema
from shared.contracts.pipeline import find_pipeline, load_pipeline
from shared.control.records import Records
from shared.kafka.columns import Reads
from shared.runtime.entry import Start, guarded, prepare, run
from shared.runtime.stage import Stage
from shared.runtime.tables import Table
from shared.runtime.unit import Unit
from shared.settings import PlatformSettings
from shared.topics import (
    ACCEPTED,
    FEATURES,
    JOINED,
    LABELED,
    LABELS,
    PREDICTIONS,
    PROFILES,
    SCORES,
    SHADOWS,
    Topic,
)

STAGES = ("join", "score")


def build(start: Start, stage: str) -> Stage:
    """The stage `join`, a unit a partition, or `score`, one unit."""
    JoinSpec.of(start.pipeline)
    return _join(start) if stage == "join" else _score(start)


def _join(start: Start) -> Stage:
    pipeline = start.pipeline
    prediction = platform_schema("prediction")
    tables = JoinTables(
        _table(start, ACCEPTED, accepted_schema(pipeline)),
        _table(start, FEATURES, features_schema(pipeline)),
        _table(start, PREDICTIONS, prediction),
        _table(start, SHADOWS, prediction),
        _table(start, JOINED, joined_schema(pipeline)),
        label_table(pipeline, start.schema_ids[LABELS.of(pipeline.name)]),
        Records.of(PROFILES, pipeline.name, start.schema_ids) if pipeline.loops else None,
    )
    metrics = JoinMetrics.on(start.metrics)

    def make_unit(number: int) -> Unit:
        unit = JoinUnit(pipeline, number, tables)
        metrics.watch(number, unit.fold.counts)
        return unit

    return Stage(pipeline.name, "feedback", "feedback-join", tables.inputs, make_unit)


def _score(start: Start) -> Stage:
    from services.feedback.score_unit import ScoreUnit  # the join needs none of its metrics

    pipeline = start.pipeline
    joined = _table(start, JOINED, joined_schema(pipeline))
    labeled = _table(start, LABELED, labeled_schema(pipeline))
    scores = _table(start, SCORES, platform_schema("score"))
    return Stage(
        pipeline.name,
        "feedback",
        "feedback-score",
        (joined.topic,),
        lambda _: ScoreUnit(pipeline, joined, labeled, scores),
        compression=LABELED.compression,
        reads=Reads(keys_and_times=False),
    )


def _table(start: Start, topic: Topic, schema: dict[str, object]) -> Table:
    name = topic.of(start.pipeline.name)
    return Table.of(name, start.schema_ids[name], schema)


def main() -> None:
    """Run until a signal asks to stop."""
    parser = argparse.ArgumentParser(prog="millrace-feedback")
    parser.add_argument("--pipeline", required=True, help="name of a folder below schemas/")
    parser.add_argument("--stage", required=True, choices=STAGES, help="the join, or the score behind it")
    parser.add_argument("--slot", type=int, default=0, help="this worker's number among those of the stage")
    arguments = parser.parse_args()
    guarded(lambda: _serve(arguments.pipeline, arguments.stage, arguments.slot))


def _serve(name: str, stage: str, slot: int) -> None:
    settings = FeedbackSettings()
    start = prepare(load_pipeline(find_pipeline(name)), PlatformSettings())
    run(start, build(start, stage), slot, settings.runtime)


if __name__ == "__main__":
    main()
