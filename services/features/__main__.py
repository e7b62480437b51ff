"""Composition root: one stage of one pipeline's features."""

import argparse
from collections.abc import Callable

import numpy as np

from services.features.core.fold import FeatureFold
from services.features.core.profile import ProfiledFold
from services.features.metrics import ViewMetrics
from services.features.settings import FeaturesSettings
from services.features.view import ViewWriter
from shared.codec.batch import Batch, Strings
from shared.codec.hashing import partition_of
from shared.contracts.generated import accepted_schema, features_schema, stage_schema
from shared.contracts.pipeline import find_pipeline, load_pipeline
from shared.control.records import Records
from shared.errors import Refused
from shared.kafka.columns import Reads
from shared.runtime.entry import Start, guarded, prepare, run
from shared.runtime.merged import Fold, Listeners, MergedUnit
from shared.runtime.stage import Stage
from shared.runtime.tables import Table
from shared.runtime.unit import Out, Unit
from shared.settings import PlatformSettings
from shared.store.view import FeatureView
from shared.topics import ACCEPTED, FEATURES, PROFILES, stage_topic


def build(start: Start, entity: str, view: ViewWriter | None) -> Stage:
    """The stage of `entity`."""
    pipeline = start.pipeline
    names = [each.name for each in pipeline.entities]
    if entity not in names:
        raise Refused(f"{pipeline.name} has no entity {entity!r}; its stages are {', '.join(names)}")
    stage = names.index(entity)
    last = stage == len(names) - 1
    source = _input(start, stage)
    target = _output(start, stage)
    write = _writer(target, pipeline.partitions, _last_key if last else _next_key(start, stage))
    listeners = None if last else Listeners(target, pipeline.partitions)

    profiles = Records.of(PROFILES, pipeline.name, start.schema_ids) if last and pipeline.loops else None

    def make_unit(number: int) -> Unit:
        fold: Fold
        if profiles is None:
            fold, told = FeatureFold(pipeline, stage, number), write
        else:
            fold = profiled = ProfiledFold(pipeline, stage, number)
            told = _with_profiles(write, profiled, profiles)
        sources = 1 if stage == 0 else pipeline.partitions
        in_order = pipeline.order == "event"
        seen = view.take if last and view is not None else None
        return MergedUnit(number, source, fold, told, sources, listeners, in_order, seen)

    return Stage(
        pipeline.name,
        "features",
        f"features-{entity}",
        (source.topic,),
        make_unit,
        reads=Reads(keys_and_times=False),
    )


def _input(start: Start, stage: int) -> Table:
    pipeline = start.pipeline
    if stage == 0:
        topic, schema = ACCEPTED.of(pipeline.name), accepted_schema(pipeline)
    else:
        topic = stage_topic(pipeline.entities[stage].name).of(pipeline.name)
        schema = stage_schema(pipeline, stage - 1)
    return Table.of(topic, start.schema_ids[topic], schema)


def _output(start: Start, stage: int) -> Table:
    pipeline = start.pipeline
    if stage == len(pipeline.entities) - 1:
        topic, schema = FEATURES.of(pipeline.name), features_schema(pipeline)
    else:
        topic = stage_topic(pipeline.entities[stage + 1].name).of(pipeline.name)
        schema = stage_schema(pipeline, stage)
    return Table.of(topic, start.schema_ids[topic], schema)


def _writer(table: Table, partitions: int, key: Callable[[Batch], Strings]) -> Callable[[Batch], list[Out]]:
    def write(batch: Batch) -> list[Out]:
        keys = key(batch)
        places = partition_of(keys, partitions).astype(np.int32, copy=False)
        return [Out(table.topic, keys, table.write(batch), places)]

    return write


def _with_profiles(
    write: Callable[[Batch], list[Out]], fold: ProfiledFold, profiles: Records
) -> Callable[[Batch], list[Out]]:
    """Write the rows, and in the same transaction the profiles that they filled."""

    def both(batch: Batch) -> list[Out]:
        outs = write(batch)
        if fold.full:
            outs.append(profiles.out([(str(each["unit"]), each) for each in fold.full]))
        return outs

    return both


def _last_key(batch: Batch) -> Strings:
    return batch["key"].strings


def _next_key(start: Start, stage: int) -> Callable[[Batch], Strings]:
    field = start.pipeline.entities[stage + 1].key

    def key(batch: Batch) -> Strings:
        event = batch[f"event.{field}"].strings
        if f"label.{field}" not in batch:
            return event
        return Strings.choose(batch["event"].array, event, batch[f"label.{field}"].strings)

    return key


def main() -> None:
    """Run until a signal asks to stop."""
    parser = argparse.ArgumentParser(prog="millrace-features")
    parser.add_argument("--pipeline", required=True, help="name of a folder below schemas/")
    parser.add_argument("--stage", required=True, help="the entity whose stage this is")
    parser.add_argument("--slot", type=int, default=0, help="this worker's number among those of the stage")
    arguments = parser.parse_args()
    guarded(lambda: _serve(arguments.pipeline, arguments.stage, arguments.slot))


def _serve(name: str, entity: str, slot: int) -> None:
    settings = FeaturesSettings()
    pipeline = load_pipeline(find_pipeline(name))
    start = prepare(pipeline, PlatformSettings())
    view = None
    if settings.view and entity == pipeline.entities[-1].name:
        store = FeatureView(
            start.platform.redis.url.get_secret_value(), pipeline.name, pipeline.feature_names
        )
        view = ViewWriter(store, ViewMetrics.on(start.metrics), settings.view_interval_s)
    try:
        run(start, build(start, entity, view), slot, settings.runtime)
    finally:
        if view is not None:
            view.close()


if __name__ == "__main__":
    main()
