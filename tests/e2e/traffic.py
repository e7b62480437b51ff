"""Steady good traffic, what is mixed into it, and when each answer came."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise

from confluent_kafka import KafkaError, Message, Producer, TopicPartition

from schemas import platform_schema
from services.cli.journey import Journey
from shared.codec.frame import frame_prefix, split_frames
from shared.kafka.columns import to_polled
from shared.kafka.reader import open_reader, partitions_of
from shared.kafka.transactions import producer_config
from shared.runtime.tables import Table
from shared.topics import PREDICTIONS
from tests.e2e.bad_records import Ids, Purchase, Record, customers, home_of

Place = tuple[str, int, int]
TICK_S = 0.1
GOOD_A_TICK = 20
CUSTOMERS = customers(40)


@dataclass(slots=True)
class Sent:
    """What was sent: when each event that must be answered left, and the reason due for each bad place."""

    answered: dict[str, float] = field(default_factory=dict)
    letters: dict[Place, str] = field(default_factory=dict)
    names: dict[Place, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


class Traffic:
    """Sends records of the pipeline `hostile` as a foreign producer would."""

    def __init__(self, journey: Journey) -> None:
        self.sent = Sent()
        self._name = journey.pipeline.name
        self.ids = Ids(*(journey.schema_ids[journey.topic(t)] for t in ("events.v1", "labels.v1", "dlq.v1")))
        self._count = 0
        config = producer_config(journey.platform.kafka, "none")
        self._producer = Producer({**config, "message.max.bytes": 1_040_000})

    def purchase(self, customer: str | None = None) -> Purchase:
        """The next purchase, now: of the given customer, or of all in turn."""
        self._count += 1
        number = self._count
        who = customer or CUSTOMERS[number % len(CUSTOMERS)]
        return Purchase(f"p{number:06d}", now_ms(), who, f"shop-{number % 7}", self.ids)

    def send_good(self, customer: str) -> None:
        """One good event, taken by the broker on return."""
        purchase = self.purchase(customer)
        self.send(purchase.good(), purchase)
        self.flush()

    def send_newer(self, schema_id: int) -> str:
        """One good event by a schema with one more optional field at the end; its id."""
        purchase = self.purchase()
        value = frame_prefix(schema_id) + purchase.datum() + b"\0"
        self.send(replace(purchase.good(), value=value), purchase)
        return purchase.id

    def expect(self, place: Place, reason: str, name: str) -> None:
        """A letter is due for a record that was sent by other means."""
        self.sent.letters[place] = reason
        self.sent.names[place] = name

    def send(self, record: Record, purchase: Purchase, name: str = "") -> None:
        """Send one record; what must become of it is noted once the broker has it."""
        topic = f"{self._name}.{record.topic}"
        if record.predicted:
            self.sent.answered[purchase.id] = time.monotonic()
        where = record.partition
        if record.key is None:
            where = home_of(purchase.customer)
        self._producer.produce(
            topic,
            record.value,
            record.key,
            -1 if where is None else where,
            on_delivery=partial(self._delivered, record.reason, name),
            timestamp=record.timestamp_ms,
            headers=list(record.headers) or None,
        )

    def tick(self, pause_s: float = TICK_S) -> None:
        """A tenth of a second's good events, and the pause behind them."""
        for _ in range(GOOD_A_TICK):
            purchase = self.purchase()
            self.send(purchase.good(), purchase)
        self._producer.poll(0)
        time.sleep(pause_s)

    def flush(self) -> None:
        """Wait until the broker has it all."""
        assert self._producer.flush(30.0) == 0
        assert not self.sent.failures, self.sent.failures

    def _delivered(self, reason: str, name: str, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.sent.failures.append(f"{name}: {error}")
        elif reason:
            self.expect(
                (message.topic() or "", message.partition() or 0, message.offset() or 0), reason, name
            )


@dataclass(frozen=True, slots=True)
class Answer:
    """A committed prediction as a reader saw it."""

    event_id: str
    model_version: int
    model_digest: str
    seen_at: float


class Answers:
    """Every committed prediction of a pipeline, with the moment at which it could be read."""

    def __init__(self, journey: Journey) -> None:
        self.all: list[Answer] = []
        topic = PREDICTIONS.of(journey.pipeline.name)
        self._table = Table.of(topic, journey.schema_ids[topic], platform_schema("prediction"))
        self._reader = open_reader(journey.platform.kafka)
        places = [TopicPartition(topic, p, 0) for p in partitions_of(self._reader, topic)]
        self._reader.assign(places)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextmanager
    def watched(self) -> Iterator["Answers"]:
        """Read beside the block."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()
            self._reader.close()

    def wait_for(self, wanted: Sequence[str], patience_s: float) -> None:
        """Return when all of `wanted` were answered, or after so long."""
        deadline = time.monotonic() + patience_s
        left = set(wanted)
        while left and time.monotonic() < deadline:
            left -= {answer.event_id for answer in list(self.all)}
            time.sleep(0.05)

    def _run(self) -> None:
        while not self._stop.is_set():
            messages = self._reader.consume(1_000, timeout=0.05)
            now = time.monotonic()
            for polled in to_polled([m for m in messages if m.error() is None]):
                _, payload, _ = split_frames(polled.values)
                rows = self._table.program.decode(payload).batch
                columns = (
                    rows["event_id"].strings.to_list(),
                    rows["model_version"].array.tolist(),
                    rows["model_digest"].strings.to_list(),
                )
                self.all += [Answer(i.decode(), v, d.decode(), now) for i, v, d in zip(*columns, strict=True)]


def longest_gap_s(times: Sequence[float]) -> float:
    """The longest pause between two neighbours; infinity where there are no two."""
    ordered = sorted(times)
    return max((b - a for a, b in pairwise(ordered)), default=float("inf"))


def now_ms() -> int:
    """The wall clock, in milliseconds UTC."""
    return time.time_ns() // 1_000_000
