"""Composition root: ingest for one pipeline."""

import argparse
import time

from services.ingest.control import ReplayReader
from services.ingest.metrics import DoorMetrics
from services.ingest.schemas import RegistrySchemas
from services.ingest.settings import IngestSettings
from services.ingest.unit import IngestUnit
from shared.contracts.generated import accepted_schema
from shared.contracts.pipeline import find_pipeline, load_pipeline
from shared.kafka.columns import Reads
from shared.runtime.entry import Start, guarded, prepare, run
from shared.runtime.stage import Stage
from shared.runtime.tables import Table
from shared.runtime.unit import Unit
from shared.settings import PlatformSettings
from shared.topics import ACCEPTED, EVENTS, LABELS, REPLAYS


def build(start: Start, settings: IngestSettings) -> Stage:
    """The stage, with the reader of replays.v1 beside it."""
    pipeline = start.pipeline
    readers = {EVENTS.of(pipeline.name): pipeline.event.avro}
    if pipeline.label is not None:
        readers[LABELS.of(pipeline.name)] = pipeline.label.avro
    schemas = RegistrySchemas(start.registry, readers)
    topic = ACCEPTED.of(pipeline.name)
    table = Table.of(topic, start.schema_ids[topic], accepted_schema(pipeline))
    control = ReplayReader(start.platform.kafka, REPLAYS.of(pipeline.name))
    metrics = DoorMetrics.on(start.metrics)

    def make_unit(number: int) -> Unit:
        now_ms = time.time_ns() // 1_000_000
        unit = IngestUnit(pipeline, number, schemas, table, control.replays, settings.limits, now_ms)
        metrics.watch(number, unit.counts)
        return unit

    return Stage(
        pipeline.name,
        "ingest",
        "ingest",
        tuple(readers),
        make_unit,
        reads=Reads(headers=settings.read_headers),
        strangers=True,
        refresh=control.refresh,
    )


def main() -> None:
    """Run until a signal asks to stop."""
    parser = argparse.ArgumentParser(prog="millrace-ingest")
    parser.add_argument("--pipeline", required=True, help="name of a folder below schemas/")
    parser.add_argument("--slot", type=int, default=0, help="this worker's number")
    arguments = parser.parse_args()
    guarded(lambda: _serve(arguments.pipeline, arguments.slot))


def _serve(name: str, slot: int) -> None:
    settings = IngestSettings()
    start = prepare(load_pipeline(find_pipeline(name)), PlatformSettings())
    run(start, build(start, settings), slot, settings.runtime)


if __name__ == "__main__":
    main()
