"""What a poll gave, sorted to the units that it is for; what cannot be read, and the client's errors."""

import time
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from shared.errors import Fatal, Retry
from shared.kafka.columns import to_polled
from shared.kafka.reader import CANNOT_READ, bounds
from shared.kafka.unreadable import find_unreadable
from shared.runtime.incidents import Incidents
from shared.runtime.instruments import Instruments
from shared.runtime.polled import Polled
from shared.runtime.stage import Stage
from shared.runtime.unit import Unit
from shared.settings import KafkaSettings


@dataclass(slots=True)
class Held:
    """One assigned partition number: its unit, what is committed, and what was read."""

    unit: Unit
    next_offsets: dict[str, int]
    positions: dict[str, int]
    incidents: Incidents = field(default_factory=Incidents)
    waiting: list[Polled] = field(default_factory=list)
    paused: set[str] = field(default_factory=set)
    rows: int = 0
    saved_at: float = field(default_factory=time.monotonic)


class Intake:
    """Gives the messages of one session's consumer to the partition numbers in `held`, by topic and place."""

    def __init__(
        self,
        stage: Stage,
        kafka: KafkaSettings,
        consumer: Consumer,
        held: dict[int, Held],
        seen: Instruments,
    ) -> None:
        self._stage, self._kafka, self._consumer = stage, kafka, consumer
        self._held, self._seen = held, seen

    def take(self, messages: list[Message]) -> None:
        """Sort what was read to its unit; the client's errors become ours."""
        good: list[Message] = []
        ends: dict[tuple[str, int], int] = {}
        broken: set[tuple[str, int]] = set()
        if all(message.error() is None for message in messages):
            self._give(to_polled(messages, self._stage.reads), ends)
            return
        for message in messages:
            error = message.error()
            place = (message.topic() or "", message.partition() or 0)
            if place in broken:
                continue  # behind a batch that cannot be read the client's offsets mean nothing
            if error is None:
                good.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ends[place] = message.offset() or 0
            elif error.code() in CANNOT_READ:
                broken.add(place)
            else:
                self._client_error(message, error)
        self._give(to_polled(good, self._stage.reads), ends)
        for topic, number in broken:
            self._skip(topic, number)

    def _give(self, read: list[Polled], ends: dict[tuple[str, int], int]) -> None:
        """Records and ends to their units."""
        for polled in read:
            held = self._held.get(polled.partition)
            if held is None:
                raise Retry(f"records of {polled.topic}/{polled.partition}, which is not ours")
            held.waiting.append(polled)
            held.rows += len(polled)
            held.positions[polled.topic] = int(polled.offsets[-1]) + 1
            held.unit.at_end(polled.topic, False)
            self._seen.records.labels(polled.topic).inc(len(polled))
            # An end that was told before the newest of these records came is over.
            if ends.get((polled.topic, polled.partition), -1) <= int(polled.offsets[-1]):
                ends.pop((polled.topic, polled.partition), None)
        for topic, number in ends:
            if number in self._held:
                self._held[number].unit.at_end(topic, True)

    def _skip(self, topic: str, number: int) -> None:
        """Go on behind a batch that cannot be read, and keep what is to be told of it."""
        held = self._held.get(number)
        if held is None:
            return
        at = held.positions[topic]
        found = find_unreadable(self._kafka, topic, number, at)
        if found is None:
            raise Retry(f"the client could not read {topic}/{number} offset {at}, but another one can")
        if not self._stage.strangers:
            raise Fatal(
                f"{topic}/{number} offsets {found.first} to {found.next_offset - 1} cannot be read "
                f"({found.error}) and only Millrace writes there; restore the topic, or reset the consumer group"
            )
        held.incidents.add(found, at)
        held.positions[topic] = found.next_offset
        held.unit.at_end(topic, False)
        self._move(topic, number, found.next_offset)

    def _stand(self, topic: str, number: int) -> None:
        """Go on from where the unit stands: behind a broken batch the client may ask for offsets of garbage."""
        held = self._held.get(number)
        if held is None:
            return
        at = held.positions[topic]
        if at < bounds(self._consumer, topic, number)[0]:
            raise Fatal(f"records of {topic}/{number} from offset {at} on were deleted before they were read")
        self._move(topic, number, at)

    def _move(self, topic: str, number: int, offset: int) -> None:
        try:
            self._consumer.seek(TopicPartition(topic, number, offset))
        except KafkaException as error:
            raise Retry(f"{topic}/{number} could not be moved: {error.args[0]}") from error

    def _client_error(self, message: Message, error: KafkaError) -> None:
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._stand(message.topic() or "", message.partition() or 0)
            return
        if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION):
            raise Fatal(f"{message.topic()} is gone or has fewer partitions: {error}")
        if error.fatal():
            raise Fatal(str(error))
        if not error.retriable() and error.code() not in (
            KafkaError._TRANSPORT,
            KafkaError._ALL_BROKERS_DOWN,
        ):
            raise Retry(str(error))
