"""Composition root: the drift monitor of one pipeline."""

import argparse

from services.drift.core.monitor import Monitor
from services.drift.service import Service, Topics
from services.drift.settings import DriftSettings
from shared.contracts.generated import labeled_schema
from shared.contracts.pipeline import Pipeline, find_pipeline, load_pipeline
from shared.control.loop import Control
from shared.control.records import Records
from shared.errors import Refused
from shared.runtime.entry import Start, guarded, prepare
from shared.runtime.tables import Table
from shared.settings import PlatformSettings
from shared.topics import DRIFT, LABELED, PROFILES


def make_monitor(pipeline: Pipeline) -> Monitor:
    """The monitor that the declaration asks for."""
    codes = {
        each.name: range(each.categories) for each in pipeline.expressions if each.categories is not None
    }
    return Monitor(pipeline.policy.drift, pipeline.feature_names, pipeline.class_count, codes)


def build(start: Start, slot: int, settings: DriftSettings) -> tuple[Control, Service]:
    """The loop with its handlers, and the service behind them."""
    pipeline, ids = start.pipeline, start.schema_ids
    if pipeline.label is None or not pipeline.loops:
        raise Refused(
            f"{pipeline.name} declares no loop: add [label] and [policy.retrain], or leave drift out"
        )
    labeled = LABELED.of(pipeline.name)
    topics = Topics(
        Table.of(labeled, ids[labeled], labeled_schema(pipeline)),
        Records.of(PROFILES, pipeline.name, ids),
        Records.of(DRIFT, pipeline.name, ids),
    )

    control = Control(start, "drift", slot, settings.control)
    service = Service(control, lambda: make_monitor(pipeline), topics, settings)
    control.on(topics.labeled.topic)(service.take)
    control.on(topics.profiles.topic, most=50)(service.take)
    return control, service


def main() -> None:
    """Run until a signal asks to stop."""
    parser = argparse.ArgumentParser(prog="millrace-drift")
    parser.add_argument("--pipeline", required=True, help="name of a folder below schemas/")
    parser.add_argument("--slot", type=int, default=0, help="this worker's number; one works, others wait")
    arguments = parser.parse_args()
    guarded(lambda: _serve(arguments.pipeline, arguments.slot))


def _serve(name: str, slot: int) -> None:
    start = prepare(load_pipeline(find_pipeline(name)), PlatformSettings())
    control, service = build(start, slot, DriftSettings())
    control.run()
    service.save()


if __name__ == "__main__":
    main()
