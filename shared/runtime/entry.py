"""From a service's settings to a running worker: what all composition roots have in common."""

import gc
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from fastavro import parse_schema, schemaless_writer
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ConfigDict

from schemas import platform_schema
from shared.codec.frame import frame_prefix
from shared.contracts.pipeline import Pipeline
from shared.errors import Fatal, Refused, Retry
from shared.kafka.registry import Registry, register_pipeline
from shared.kafka.transactions import producer_config
from shared.runtime.context import Context, backoff
from shared.runtime.deadletters import DeadLetterWriter
from shared.runtime.health import Health, sample, serve
from shared.runtime.instruments import Instruments
from shared.runtime.snapshots import SnapshotStore
from shared.runtime.stage import Stage, Tuning
from shared.runtime.worker import Worker
from shared.settings import PlatformSettings, home
from shared.topics import DLQ, METRICS

DEFAULTS = Tuning()
EXIT_FATAL = 70
EXIT_REFUSED = 78


class RuntimeSettings(BaseModel):
    """What every service's settings carry about its loop."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    health_host: str = "127.0.0.1"
    """Interface of the health and metrics endpoint."""
    health_port: int = 0
    """Its port; 0 takes a free one, told in `$MILLRACE_HOME/run/<stage>-<slot>.json`."""
    max_records: int = DEFAULTS.max_records
    """Records a poll at most."""
    poll_timeout_s: float = DEFAULTS.poll_timeout_s
    """Seconds that a poll waits for more records."""
    snapshot_records: int = DEFAULTS.snapshot_records
    """Records of one partition after which its state is saved."""
    snapshot_interval_s: float = DEFAULTS.snapshot_interval_s
    """Seconds after which a changed state is saved."""
    fuse_limit: int = DEFAULTS.fuse_limit
    """Bad records in a row that stop the service."""
    transactional: bool = DEFAULTS.transactional
    """False only in the negative control of the fault test: exactly-once is then lost."""

    def tuning(self) -> Tuning:
        """The loop's part."""
        return Tuning(
            max_records=self.max_records,
            poll_timeout_s=self.poll_timeout_s,
            snapshot_records=self.snapshot_records,
            snapshot_interval_s=self.snapshot_interval_s,
            fuse_limit=self.fuse_limit,
            transactional=self.transactional,
        )


@dataclass(frozen=True, slots=True)
class Start:
    """What a composition root knows before it builds its stage."""

    platform: PlatformSettings
    pipeline: Pipeline
    registry: Registry
    schema_ids: dict[str, int]
    metrics: CollectorRegistry


def prepare(pipeline: Pipeline, platform: PlatformSettings) -> Start:
    """Register the pipeline's contracts, waiting for the registry when it is away."""
    registry = Registry(platform.registry)
    attempt = 0
    while True:
        try:
            ids = register_pipeline(registry, pipeline)
            return Start(platform, pipeline, registry, ids, CollectorRegistry())
        except Retry as failure:
            attempt += 1
            if attempt > 30:
                raise Fatal(f"the schema registry did not answer: {failure}") from failure
            time.sleep(backoff(attempt))


def run(start: Start, stage: Stage, slot: int, settings: RuntimeSettings) -> None:
    """Run `stage` until a signal asks to stop; the batch under way is finished and committed first."""
    health = Health()
    server = serve(health, start.metrics, settings.health_host, settings.health_port)
    topic = DLQ.of(start.pipeline.name)
    letters = DeadLetterWriter(
        stage.service, topic, platform_schema("dead_letter"), frame_prefix(start.schema_ids[topic])
    )
    told = MetricsPublisher(start, stage.name, slot)
    context = Context(
        kafka=start.platform.kafka,
        slot=slot,
        store=SnapshotStore(start.platform.snapshots_url, start.pipeline.name, stage.name),
        letters=letters,
        tuning=settings.tuning(),
        health=health,
        seen=Instruments.on(start.metrics),
        tell=told,
    )
    worker = Worker(stage, context)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop.set())
    note = tell_address(
        stage.pipeline, stage.name, slot, f"http://{settings.health_host}:{server.server_port}"
    )
    # A message is an object that the cycle collector tracks: left alone it takes a third of the loop's time and
    # finds nothing. The loop makes no cycles; what libraries make is collected now and then.
    # Two threads take turns: the loop, and the one that writes its transactions. Python's five milliseconds a turn
    # would be most of a transaction.
    sys.setswitchinterval(0.0005)
    gc.freeze()
    gc.disable()
    try:
        worker.run()
    finally:
        told.close()
        server.shutdown()
        note.unlink(missing_ok=True)


def tell_address(pipeline: str, stage: str, slot: int, url: str) -> Path:
    """Note below the home where a worker answers health questions; the worker takes the note away at its end."""
    folder = home() / "run"
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / f"{pipeline}.{stage}-{slot}.json"
    note.write_text(json.dumps({"pid": os.getpid(), "url": url}))
    return note


class MetricsPublisher:
    """Sends the worker's metrics to `metrics.v1`; they are not part of any transaction and may be lost."""

    def __init__(self, start: Start, stage: str, slot: int) -> None:
        self._producer = Producer(producer_config(start.platform.kafka, "none"))
        self._topic = METRICS.of(start.pipeline.name)
        self._prefix = frame_prefix(start.schema_ids[self._topic])
        self._schema = parse_schema(platform_schema("metric"))
        self._metrics, self._stage, self._slot = start.metrics, stage, slot

    def __call__(self) -> None:
        """Send every counter and gauge once; what the last call could not deliver is forgotten."""
        self._producer.purge(in_flight=False)
        now = time.time_ns() // 1_000_000
        for name, labels, value in sample(self._metrics, ()):
            if name.endswith(("_bucket", "_created")):
                continue
            self._producer.produce(self._topic, self._encode(name, labels, value, now), self._stage)
        self._producer.poll(0)

    def close(self) -> None:
        """Send the last values, for a second at the most."""
        self()
        self._producer.flush(1.0)
        self._producer.purge()
        self._producer.flush(1.0)

    def _encode(self, name: str, labels: dict[str, str], value: float, now: int) -> bytes:
        buffer = io.BytesIO()
        buffer.write(self._prefix)
        record: dict[str, Any] = {
            "service": self._stage,
            "slot": self._slot,
            "name": name,
            "value": value,
            "labels": labels,
            "at": now,
        }
        schemaless_writer(buffer, self._schema, record)
        return buffer.getvalue()


def guarded(work: Callable[[], None]) -> None:
    """Run a service's main; a refusal or a fatal error is said on stderr and becomes the exit code."""
    try:
        work()
    except Refused as refusal:
        sys.stderr.write(f"refused: {refusal}\n")
        sys.exit(EXIT_REFUSED)
    except Fatal as failure:
        sys.stderr.write(f"fatal: {failure}\n")
        sys.exit(EXIT_FATAL)
