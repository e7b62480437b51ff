"""A producer as a business system would be: events of now, at a steady rate, one record at a time."""

import time
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from confluent_kafka import KafkaError, Message, Producer

from services.cli.journey import Journey
from shared.codec.batch import Batch
from shared.codec.frame import frame_prefix
from shared.codec.hashing import partition_of
from shared.codec.program import compile_program
from shared.errors import Retry
from shared.kafka.transactions import producer_config
from shared.topics import EVENTS

Ints = npt.NDArray[np.int64]
# Events are sent in small groups, as they fall due within this time.
TICK_S = 0.001
# A producer that has just started waits for its connections and its id; a business system's runs already.
CONNECT_S = 1.0


@dataclass(frozen=True, slots=True)
class Sent:
    """When each event was handed to the client: by partition, in offset order, from `first_offset` on."""

    sent_ns: dict[int, Ints]
    first_offset: dict[int, int]
    events: int
    seconds: float


def send_live(journey: Journey, events: Batch, rate: float) -> Sent:
    """Send `events` at `rate` a second with their time field set to the moment at which each is due.

    They are encoded beforehand: what sends shares the machine with what is measured.

    Raises:
        Retry: the broker did not take a record.
    """
    pipeline = journey.pipeline
    topic = EVENTS.of(pipeline.name)
    program, prefix = compile_program(pipeline.event.avro), frame_prefix(journey.schema_ids[topic])
    keys = events[pipeline.event.key].strings
    partitions = partition_of(keys, pipeline.partitions)
    key_list, place_list = keys.to_list(), partitions.tolist()
    firsts: dict[int, int] = {}
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failures.append(error)
        else:
            firsts.setdefault(message.partition() or 0, message.offset() or 0)

    producer = Producer(producer_config(journey.platform.kafka, "none"))
    producer.list_topics(topic, timeout=30.0)
    begin_ns = time.time_ns() + int(CONNECT_S * 1e9)
    due_ms = (begin_ns + np.arange(events.rows) * (1e9 / rate)).astype(np.int64) // 1_000_000
    values = program.encode(events.having(**{pipeline.event.time: due_ms}), prefix).to_list()
    time.sleep(max(0.0, (begin_ns - time.time_ns()) / 1e9))
    sent: dict[int, list[int]] = defaultdict(list)
    started, done = time.perf_counter(), 0
    while done < events.rows:
        due = min(events.rows, int((time.perf_counter() - started) * rate) + 1)
        if due <= done:
            producer.poll(TICK_S)
            continue
        now_ns = time.time_ns()
        for row in range(done, due):
            place = place_list[row]
            callback = None if place in firsts else delivered
            producer.produce(topic, values[row], key_list[row], place, on_delivery=callback)
            sent[place].append(now_ns)
        producer.poll(0)
        done = due
    seconds = time.perf_counter() - started
    if producer.flush(30.0) or failures:
        raise Retry(f"the broker did not take every event: {failures[:1]}")
    return Sent({p: np.array(t, np.int64) for p, t in sent.items()}, firsts, events.rows, seconds)
