"""Time from an event's entry to its prediction as a committed reader sees it."""

import threading
import time
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from confluent_kafka import Message, TopicPartition

from shared.kafka.columns import to_polled
from shared.kafka.reader import bounds, open_reader, partitions_of
from shared.runtime.tables import Table
from shared.settings import KafkaSettings

Ints = npt.NDArray[np.int64]

OPEN_AT = 10_000
"""Predictions opened at a time; a few milliseconds in which none is seen."""


@dataclass(slots=True)
class LatencyProbe:
    """Reads new predictions as they are committed and keeps (source partition, source offset, time seen).

    A context manager: it stands at the topic's end when the block begins. It opens many at a time: it shares the
    machine with what it measures.
    """

    kafka: KafkaSettings
    table: Table
    _seen: list[tuple[Ints, Ints, Ints]] = field(default_factory=list)
    _closed: list[Message] = field(default_factory=list)
    _times: list[int] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _ready: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    count: int = 0

    def __enter__(self) -> "LatencyProbe":
        self._thread = threading.Thread(target=self._run, name="latency", daemon=True)
        self._thread.start()
        self._ready.wait(30.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        reader = open_reader(self.kafka, **{"fetch.wait.max.ms": 5})
        topic = self.table.topic
        ends = {p: bounds(reader, topic, p)[1] for p in partitions_of(reader, topic)}
        reader.assign([TopicPartition(topic, p, end) for p, end in ends.items()])
        reader.consume(1, timeout=0.5)
        self._ready.set()
        while not self._stop.is_set():
            messages = [m for m in reader.consume(1_000, timeout=0.002) if m.error() is None]
            self._times += [time.time_ns()] * len(messages)
            self._closed += messages
            self.count += len(messages)
            if len(self._closed) >= OPEN_AT:
                self._open()
        self._open()
        reader.close()

    def _open(self) -> None:
        partitions, times = np.array([m.partition() for m in self._closed]), np.array(self._times, np.int64)
        for polled in to_polled(self._closed):
            rows = self.table.read(polled)
            self._seen.append(
                (
                    rows["source_partition"].array.astype(np.int64),
                    rows["source_offset"].array,
                    times[partitions == polled.partition],
                )
            )
        self._closed, self._times = [], []

    def milliseconds(self, sent_ns: dict[int, Ints], first_offset: dict[int, int]) -> npt.NDArray[np.float64]:
        """Milliseconds from entry to sight; `sent_ns[p][i]` is when offset `first_offset[p] + i` was sent."""
        found = []
        for partitions, offsets, seen in self._seen:
            for partition, sent in sent_ns.items():
                at = offsets - first_offset[partition]
                ours = (partitions == partition) & (at >= 0) & (at < sent.size)
                found.append((seen[ours] - sent[at[ours]]) / 1e6)
        return np.concatenate(found) if found else np.empty(0)


def percentiles(milliseconds: npt.NDArray[np.float64]) -> dict[str, float]:
    """p50, p95 and p99."""
    if not milliseconds.size:
        return {}
    found = np.percentile(milliseconds, [50, 95, 99])
    return dict(zip(("p50_ms", "p95_ms", "p99_ms"), (round(float(v), 1) for v in found), strict=True))
