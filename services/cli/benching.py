"""The parts of the benchmark: a prepared pipeline, a run over a backlog, and what the processes used."""

import os
import platform
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from confluent_kafka import Consumer, TopicPartition

from schemas import platform_schema
from services.cli.journey import Journey, Watch
from services.cli.latency import LatencyProbe, percentiles
from services.cli.live import send_live
from services.cli.payments import World, payments
from services.cli.script import Script, cut, write_script
from services.cli.untrained import announce_untrained
from services.cli.variants import write_variant
from services.stack import embedded
from shared.codec.batch import Strings
from shared.contracts.pipeline import find_pipeline
from shared.kafka.columns import to_polled
from shared.kafka.transactions import TransactionalSink
from shared.runtime.merge import EVENT
from shared.runtime.tables import Table
from shared.runtime.unit import Out
from shared.settings import home
from shared.topics import ACCEPTED, EVENTS, PREDICTIONS

ONE_ENTITY = "customer"


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    return {
        "cpus": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


@dataclass(slots=True)
class Prepared:
    """A pipeline whose events lie in events.v1, and the model that will answer them."""

    journey: Journey
    script: Script
    events: int


def declare(one_entity: bool, partitions: int, order: str = "event") -> Path:
    """A copy of fraud under a name of its own, with both entities or with the first alone."""
    name = f"fraud-bench-{time.time_ns() // 1_000_000}"
    folder = write_variant(find_pipeline("fraud"), home() / "declared", name, partitions, order)
    if one_entity:
        declaration = folder / "pipeline.toml"
        declaration.write_text(_with_one_entity(declaration.read_text()))
    return folder


def _with_one_entity(text: str) -> str:
    """Without the other entities' tables and features."""
    blocks = re.split(r"\n(?=\[)", text)
    return "\n".join(b for b in blocks if not (_is_another_entity(b) or _is_feature_of_another(b)))


def _is_another_entity(block: str) -> bool:
    return block.startswith("[[entity]]") and f'name = "{ONE_ENTITY}"' not in block


def _is_feature_of_another(block: str) -> bool:
    return block.startswith("[[feature]]") and "entity =" in block and f'entity = "{ONE_ENTITY}"' not in block


def prepare(events: int, folder: Path) -> Prepared:
    """Declare, write the script of `events` payments, announce a model."""
    journey = Journey(folder)
    world = World(customers=5_000, terminals=10_000, days=1 + events // 9_000)
    script = write_script(payments(world), journey.pipeline, 7 * 86_400_000)
    end = int(np.flatnonzero(script.kind == EVENT)[events - 1]) + 1
    announce_untrained(journey)
    return Prepared(journey, cut(script, 0, end), events)


@dataclass(slots=True)
class _Usage:
    """CPU seconds and memory of processes by name, between two looks."""

    processes: dict[str, psutil.Process]
    before: dict[str, float] = field(default_factory=dict)

    def begin(self) -> None:
        self.before = {name: _cpu_s(each) for name, each in self.processes.items()}

    def end(self, events: int) -> dict[str, dict[str, float]]:
        return {
            name: {
                "cpu_us_per_event": round((_cpu_s(each) - self.before[name]) * 1e6 / events, 2),
                "memory_mb": round(each.memory_info().rss / 1e6),
            }
            for name, each in self.processes.items()
        }


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _usage(journey: Journey) -> _Usage:
    found = {n: psutil.Process(pid) for n, pid in journey.supervisor.alive().items() if pid is not None}
    broker = next((p.pid for p in embedded.status(home()) if p.name == "kafka"), None)
    if broker is not None:
        found["broker"] = psutil.Process(broker)
    return _Usage(found)


def over_backlog(prepared: Prepared, out: str, only: Sequence[str] | None = None) -> dict[str, Any]:
    """Let services work off what lies before them; events/s from the first record out to the last.

    Start-up does not count: the clock runs from the moment when a twentieth is out. Into accepted.v1 the
    labels count too.
    """
    journey = replace_only(prepared.journey, only)
    topic = journey.topic(out)
    watch = Watch(journey.platform.kafka, topic)
    total = len(prepared.script) if out == ACCEPTED.name else prepared.events
    head = total // 20
    with journey:
        _until(watch, head, journey)
        usage = _usage(journey)
        usage.begin()
        began, counted = time.perf_counter(), watch.poll(0.0)
        _until(watch, total, journey)
        took = time.perf_counter() - began
        used = usage.end(total - counted)
    watch.close()
    return {"events_per_second": round((total - counted) / took), "seconds": round(took, 2), "parts": used}


def replace_only(journey: Journey, only: Sequence[str] | None) -> Journey:
    """The same journey with these services alone."""
    return Journey(journey.folder, journey.workers, journey.environment, only)


def _until(watch: Watch, count: int, journey: Journey, stall_s: float = 60.0) -> None:
    last, since = -1, time.monotonic()
    while (now := watch.poll(0.05)) < count:
        journey.supervisor.check()
        if now > last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > stall_s:
            raise TimeoutError(f"stands at {now} of {count}")


def latency(prepared: Prepared, rate: float, seconds: float) -> dict[str, float]:
    """Milliseconds from an event's entry to its committed prediction at `rate` events a second."""
    journey = prepared.journey
    events = prepared.script.events
    wanted = int(rate * seconds)
    rows = np.arange(wanted) % events.rows
    ids = Strings.of([f"{rate:.0f}-{i}".encode() for i in range(wanted)])
    live = events.take(rows).having(**{journey.pipeline.event.id: ids})
    topic = journey.topic(PREDICTIONS.name)
    table = Table.of(topic, journey.schema_ids[topic], platform_schema("prediction"))
    with journey:
        _warm(journey, table, live.take(np.arange(min(2_000, wanted))))
        with LatencyProbe(journey.platform.kafka, table) as probe:
            sent = send_live(journey, live.take(np.arange(2_000, wanted)), rate)
            deadline = time.monotonic() + 30.0
            while probe.count < sent.events and time.monotonic() < deadline:
                time.sleep(0.05)
    return {**percentiles(probe.milliseconds(sent.sent_ns, sent.first_offset)), "events": probe.count}


def _warm(journey: Journey, table: Table, events: Any) -> None:
    """The first events pay for start-up; they are sent and answered before the clock runs."""
    with LatencyProbe(journey.platform.kafka, table) as probe:
        send_live(journey, events, 500.0)
        deadline = time.monotonic() + 60.0
        while probe.count < events.rows and time.monotonic() < deadline:
            time.sleep(0.05)


def pass_through(prepared: Prepared, batch: int = 5_000) -> dict[str, Any]:
    """The peer: a bare transactional loop that copies events to a topic, undecoded, a batch a transaction."""
    journey = prepared.journey
    kafka = journey.platform.kafka
    source, target = journey.topic(EVENTS.name), journey.topic("metrics.v1")
    from shared.kafka.config import client_config

    consumer = Consumer(
        {
            **client_config(kafka),
            "group.id": f"peer-{time.time_ns()}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.queue.backoff.ms": 5,
        }
    )
    sink = TransactionalSink(kafka, f"peer-{time.time_ns()}", "lz4")
    consumer.subscribe([source])
    done, began = 0, 0.0
    while done < prepared.events:
        messages = [m for m in consumer.consume(batch, timeout=0.01) if m.error() is None]
        if not messages:
            continue
        began = began or time.perf_counter()
        parts = to_polled(messages)
        offsets = [TopicPartition(source, p.partition, int(p.offsets[-1]) + 1) for p in parts]
        outs = [Out(target, p.keys, p.values) for p in parts]
        sink.commit(outs, offsets, consumer.consumer_group_metadata())
        done += len(messages)
    took = time.perf_counter() - began
    sink.close()
    consumer.close()
    return {"events_per_second": round(done / took)}
