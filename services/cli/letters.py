"""The dead letters of a pipeline, read, and sent again.

What is sent again leaves a mark on dlq.v1, in the same transaction: a record with reason `redriven` and the
original's topic, partition and offset. A letter with a mark is done with, so redriving twice adds nothing; the
transactional id lets only one redrive at a time write.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException, Producer
from fastavro import parse_schema, schemaless_reader, schemaless_writer

from schemas import platform_schema
from shared.codec.batch import Strings
from shared.codec.frame import FRAME_BYTES
from shared.codec.hashing import partition_of
from shared.errors import Refused, Retry
from shared.kafka.reader import open_reader, partitions_of, read_topic
from shared.kafka.transactions import ONE_IN_FLIGHT, producer_config
from shared.runtime.deadletters import ATTEMPT_HEADER
from shared.runtime.incidents import UNREADABLE
from shared.runtime.polled import Headers
from shared.settings import KafkaSettings
from shared.topics import DLQ, EVENTS, LABELS

REDRIVEN = "redriven"
BATCH = 1_000
TIMEOUT_S = 30.0

Place = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter, or the mark of one that was sent again; `number` is its offset on dlq.v1."""

    number: int
    service: str
    reason: str
    error_class: str
    message: str
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    attempt: int

    @property
    def place(self) -> Place:
        """Where the record stood: what names it for ever."""
        return self.topic, self.partition, self.offset


def read_letters(kafka: KafkaSettings, pipeline: str) -> list[Letter]:
    """Everything on dlq.v1 that is committed, marks included, in the order of the log."""
    schema = parse_schema(platform_schema("dead_letter"))
    found = []
    for polled in read_topic(kafka, DLQ.of(pipeline)):
        for offset, value in zip(polled.offsets.tolist(), polled.values.to_list(), strict=True):
            record: Any = schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), schema, None)
            headers = [(h["name"], h["value"]) for h in record.pop("headers")]
            found.append(Letter(number=offset, headers=headers, **record))
    return found


def without_marks(letters: Iterable[Letter]) -> Iterator[tuple[Letter, bool]]:
    """The dead letters themselves, each with whether it was sent again."""
    letters = list(letters)
    done = {letter.place for letter in letters if letter.reason == REDRIVEN}
    for letter in letters:
        if letter.reason != REDRIVEN:
            yield letter, letter.place in done


def waiting(letters: Iterable[Letter], reason: str | None, numbers: Sequence[int] = ()) -> list[Letter]:
    """The letters not yet sent again, those of `reason` and `numbers` only where these are given.

    The word on a batch that could not be read has nothing to send.
    """
    return [
        letter
        for letter, done in without_marks(letters)
        if not done
        and letter.reason != UNREADABLE
        and reason in (None, letter.reason)
        and (not numbers or letter.number in numbers)
    ]


class Redrive:
    """Sends dead letters back to where they came from, as one writer for the pipeline at a time."""

    def __init__(self, kafka: KafkaSettings, pipeline: str, prefix: bytes) -> None:
        """`prefix` is the frame of the registered dead-letter schema."""
        self._kafka, self._pipeline, self._prefix = kafka, pipeline, prefix
        self._schema = parse_schema(platform_schema("dead_letter"))
        self._counts: dict[str, int] = {}
        self._producer = Producer(
            {
                **producer_config(kafka, "none"),
                **ONE_IN_FLIGHT,
                "transactional.id": f"millrace.{pipeline}.redrive",
                "log_level": 3,
            }
        )

    def run(self, reason: str | None = None, numbers: Sequence[int] = ()) -> list[Letter]:
        """Send what waits; each batch stands whole with its marks or not at all.

        Raises:
            Retry: a transaction does not stand, or another redrive took over; run it again.
            Refused: a letter names a topic that is not of this pipeline.
        """
        try:
            self._producer.init_transactions(TIMEOUT_S)
            # Only now is it certain that no other redrive's transaction is still open.
            letters = waiting(read_letters(self._kafka, self._pipeline), reason, numbers)
            for letter in letters:
                if not letter.topic.startswith(f"{self._pipeline}."):
                    raise Refused(f"letter {letter.number} came from {letter.topic}; it is not sent there")
            for begin in range(0, len(letters), BATCH):
                self._send(letters[begin : begin + BATCH])
        except KafkaException as failure:
            raise Retry(f"the redrive was broken off: {failure.args[0]}; run it again") from failure
        return letters

    def _send(self, letters: Sequence[Letter]) -> None:
        self._producer.begin_transaction()
        for letter in letters:
            self._producer.produce(
                letter.topic,
                letter.value,
                letter.key,
                self._partition(letter),
                timestamp=letter.timestamp,
                headers=sent_headers(letter),
            )
            self._producer.produce(DLQ.of(self._pipeline), self._mark(letter), letter.key)
        self._producer.commit_transaction(TIMEOUT_S)

    def _partition(self, letter: Letter) -> int:
        """Where its key belongs, in case the first producer erred; else where it was."""
        doors = (EVENTS.of(self._pipeline), LABELS.of(self._pipeline))
        if letter.key is None or letter.topic not in doors:
            return letter.partition
        return int(partition_of(Strings.of([letter.key]), self._partitions(letter.topic))[0])

    def _partitions(self, topic: str) -> int:
        if topic not in self._counts:
            reader = open_reader(self._kafka)
            try:
                self._counts[topic] = len(partitions_of(reader, topic))
            finally:
                reader.close()
        return self._counts[topic]

    def _mark(self, letter: Letter) -> bytes:
        record = {
            "service": "cli",
            "reason": REDRIVEN,
            "error_class": "Redriven",
            "message": f"letter {letter.number} ({letter.reason}) was sent again",
            "topic": letter.topic,
            "partition": letter.partition,
            "offset": letter.offset,
            "timestamp": letter.timestamp,
            "key": letter.key,
            "value": None,
            "headers": [],
            "attempt": letter.attempt,
        }
        buffer = io.BytesIO()
        buffer.write(self._prefix)
        schemaless_writer(buffer, self._schema, record)
        return buffer.getvalue()


def sent_headers(letter: Letter) -> list[tuple[str, str | bytes | None]]:
    """The original headers, with the number of attempts so far in place of what stood there.

    >>> letter = Letter(0, "ingest", "avro.eof", "", "", "p.events.v1", 0, 9, 1, b"k", b"v", [("a", b"1")], 2)
    >>> sent_headers(letter)
    [('a', b'1'), ('millrace-attempt', b'2')]
    """
    kept: list[tuple[str, str | bytes | None]] = [h for h in letter.headers if h[0] != ATTEMPT_HEADER]
    return [*kept, (ATTEMPT_HEADER, str(letter.attempt).encode())]
