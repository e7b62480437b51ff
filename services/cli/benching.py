"""The parts of the benchmark: a prepared pipeline, a run over a backlog, and what the processes used."""

import json
import os
import platform
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from confluent_kafka import Consumer, TopicPartition

from schemas import platform_schema
from services.cli.journey import Journey
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
from shared.kafka.reader import open_reader, partitions_of, read_topic
from shared.kafka.transactions import TransactionalSink
from shared.runtime.merge import EVENT
from shared.runtime.tables import Table
from shared.runtime.unit import Out
from shared.settings import home
from shared.topics import ACCEPTED, EVENTS, PREDICTIONS

ONE_ENTITY = "customer"
# Seconds at the measured rate before latencies count.
WARM_S = 4.0


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


def prepare(events: int, folder: Path, labels: bool = True) -> Prepared:
    """Declare, write the script of `events` payments, with a label behind each or alone, announce a model."""
    journey = Journey(folder)
    world = World(customers=5_000, terminals=10_000, days=1 + events // 9_000)
    script = write_script(payments(world), journey.pipeline, 7 * 86_400_000 if labels else None)
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


def _usage(journeys: Sequence[Journey]) -> _Usage:
    alive = {n: pid for each in journeys for n, pid in each.supervisor.alive().items()}
    found = {n: psutil.Process(pid) for n, pid in alive.items() if pid is not None}
    broker = next((p.pid for p in embedded.status(home()) if p.name == "kafka"), None)
    if broker is not None:
        found["broker"] = psutil.Process(broker)
    return _Usage(found)


class Gauge:
    """The ends of a topic's partitions over time: what a reader would see come, without reading it.

    Reading a topic to count it would take a core from what is measured. Ends count a marker a transaction
    besides the records, so figures are scaled by the records that were read afterwards.
    """

    def __init__(self, journey: Journey, topic: str) -> None:
        self._reader = open_reader(journey.platform.kafka)
        self._places = [TopicPartition(topic, p) for p in partitions_of(self._reader, topic)]
        self._journey = journey
        self.end = self._look()

    def follow(self, journey: Journey) -> None:
        """Stop waiting when this journey's services fail."""
        self._journey = journey

    def _look(self) -> int:
        return sum(self._reader.get_watermark_offsets(place, timeout=30.0)[1] for place in self._places)

    def until(self, count: int, stall_s: float = 120.0) -> float:
        """Wait for an end of at least `count`; the moment at which it was seen."""
        since = time.perf_counter()
        while (now := self._look()) < count:
            self._journey.supervisor.check()
            if now != self.end:
                self.end, since = now, time.perf_counter()
            elif time.perf_counter() - since > stall_s:
                raise TimeoutError(f"{self._places[0].topic} stands at {now} of {count}")
            time.sleep(0.02)
        self.end = now
        return time.perf_counter()

    def until_quiet(self, quiet_s: float = 1.0) -> float:
        """Wait until nothing has come for `quiet_s`; the moment of the last change."""
        last = time.perf_counter()
        while time.perf_counter() - last < quiet_s:
            time.sleep(0.02)
            now = self._look()
            if now != self.end:
                self.end, last = now, time.perf_counter()
        return last


def over_backlog(prepared: Prepared, out: str, only: Sequence[str] | None = None) -> dict[str, Any]:
    """Let services work off what lies before them; start-up does not count.

    One service alone is timed from a twentieth of its outputs to the last. All together are timed from the first
    record on accepted.v1 to the last prediction: the later services are ready before ingest begins. Into
    accepted.v1 the labels count too.
    """
    journey = replace_only(prepared.journey, only)
    total = len(prepared.script) if out == ACCEPTED.name else prepared.events
    gauge = Gauge(journey, journey.topic(out))
    later = ["features", "inference"] if only is None else []
    with ExitStack() as running:
        if later:
            running.enter_context(waiting := replace_only(journey, later))
            wait_ready(waiting)
        running.enter_context(first := replace_only(journey, ["ingest"] if later else only))
        gauge.follow(first)
        if later:
            door = Gauge(first, journey.topic(ACCEPTED.name))
            began = door.until(door.end + 1)
        else:
            began = gauge.until(total // 20)
        usage = _usage([first, waiting] if later else [first])
        usage.begin()
        counted = gauge.end
        gauge.until(total)
        took = gauge.until_quiet() - began
        used = usage.end(round(total * (1 - counted / gauge.end)))
    records = sum(len(part) for part in read_topic(journey.platform.kafka, journey.topic(out)))
    done = records * (gauge.end - counted) / gauge.end
    return {"events_per_second": round(done / took), "seconds": round(took, 2), "parts": used}


def wait_ready(journey: Journey, limit_s: float = 180.0) -> None:
    """Wait until every worker is ready and inference has a model."""
    deadline = time.monotonic() + limit_s
    while True:
        journey.supervisor.check()
        notes = list((home() / "run").glob(f"{journey.pipeline.name}.*.json"))
        if len(notes) == len(journey.supervisor.alive()) and all(_is_ready(note) for note in notes):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{journey.pipeline.name}: not every worker became ready")
        time.sleep(0.1)


def _is_ready(note: Path) -> bool:
    try:
        url = json.loads(note.read_text())["url"]
        ready = httpx.get(f"{url}/readyz", timeout=2.0).status_code == 200
        if "inference" not in note.name:
            return ready
        metrics = httpx.get(f"{url}/metrics", timeout=2.0).text
        return ready and "millrace_model_version 0.0" not in metrics
    except (OSError, ValueError, httpx.HTTPError):
        return False


def replace_only(journey: Journey, only: Sequence[str] | None) -> Journey:
    """The same journey with these services alone."""
    return Journey(journey.folder, journey.workers, journey.environment, only)


def latency(prepared: Prepared, rate: float, seconds: float) -> dict[str, float]:
    """Milliseconds from an event's entry to its committed prediction at `rate` events a second."""
    journey = prepared.journey
    events = prepared.script.events
    wanted = int(rate * (seconds + WARM_S))
    rows = np.arange(wanted) % events.rows
    ids = Strings.of([f"{rate:.0f}-{i}".encode() for i in range(wanted)])
    live = events.take(rows).having(**{journey.pipeline.event.id: ids})
    topic = journey.topic(PREDICTIONS.name)
    table = Table.of(topic, journey.schema_ids[topic], platform_schema("prediction"))
    with journey:
        wait_ready(journey)
        warm = int(rate * WARM_S)
        _warm(journey, table, live.take(np.arange(warm)), rate)
        with LatencyProbe(journey.platform.kafka, table) as probe:
            sent = send_live(journey, live.take(np.arange(warm, wanted)), rate)
            deadline = time.monotonic() + 30.0
            while probe.count < sent.events and time.monotonic() < deadline:
                time.sleep(0.05)
    return {**percentiles(probe.milliseconds(sent.sent_ns, sent.first_offset)), "events": probe.count}


def _warm(journey: Journey, table: Table, events: Any, rate: float) -> None:
    """The first events pay for start-up; they are sent and answered before the clock runs."""
    with LatencyProbe(journey.platform.kafka, table) as probe:
        send_live(journey, events, rate)
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
