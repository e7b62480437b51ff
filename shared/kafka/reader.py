"""Read ranges of topics outside a consumer group: recovery, tools, datasets and checks."""

import time
from collections.abc import Iterator, Mapping
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from shared.errors import Retry
from shared.kafka.columns import PLAIN, Reads, to_polled
from shared.kafka.config import client_config
from shared.runtime.polled import Polled
from shared.settings import KafkaSettings

BATCH = 5_000
STALL_S = 60.0
LEADER_S = 10.0
LEADERLESS = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
# What one fetch may hold, and what one batch may inflate to: every consumer of Millrace has the same limits,
# so that what one could not read is not read by another either.
LIMITS: dict[str, object] = {
    "check.crcs": True,
    "fetch.max.bytes": 33_554_432,
    "receive.message.max.bytes": 67_108_864,
}
# The client's words for a batch of broken bytes; a wrong checksum can show as an unknown format behind it.
CANNOT_READ = (KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG, KafkaError._NOT_IMPLEMENTED)


class UnreadableBatch(Retry):
    """A batch that the client cannot read stands at or behind what was last read from this partition."""

    def __init__(self, topic: str, partition: int, error: str) -> None:
        super().__init__(f"{topic}/{partition} holds a batch that cannot be read: {error}")
        self.topic = topic
        self.partition = partition


def open_reader(settings: KafkaSettings, **more: object) -> Consumer:
    """A consumer of committed records without a group's rebalancing; the caller closes it."""
    return Consumer(
        {
            **client_config(settings),
            "group.id": f"millrace-reader-{uuid4()}",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.queue.backoff.ms": 5,
            "queued.max.messages.kbytes": 32_768,
            **LIMITS,
            **more,
        }
    )


def bounds(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    """The first offset kept and the offset behind the last one that a committed reader can see.

    Waits a while for a partition that has no leader yet: it was made just now, or its broker starts.

    Raises:
        Retry: the broker does not say.
    """
    deadline = time.monotonic() + LEADER_S
    while True:
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30.0)
        except KafkaException as error:
            if error.args[0].code() in LEADERLESS and time.monotonic() < deadline:
                time.sleep(LEADER_S / 100)
                continue
            raise Retry(f"no offsets of {topic}/{partition}: {error.args[0]}") from error
        return int(low), int(high)


def partitions_of(consumer: Consumer, topic: str) -> list[int]:
    """The topic's partition numbers; Retry where the broker does not know the topic."""
    try:
        found = consumer.list_topics(topic, timeout=30.0).topics[topic]
    except KafkaException as error:
        raise Retry(f"no metadata of {topic}: {error.args[0]}") from error
    if found.error is not None:
        raise Retry(f"no metadata of {topic}: {found.error}")
    return sorted(found.partitions)


def read_ranges(
    consumer: Consumer, ranges: Mapping[tuple[str, int], tuple[int, int]], reads: Reads = PLAIN
) -> Iterator[Polled]:
    """Yield all committed records of each `(topic, partition): (from, to)` range, `to` not included.

    Raises:
        UnreadableBatch: the client cannot go on there; everything before it has been yielded.
        Retry: nothing came for a minute, or the broker reports an error.
    """
    left = {place: end for place, (start, end) in ranges.items() if start < end}
    if not left:
        return
    consumer.assign([TopicPartition(t, p, ranges[t, p][0]) for t, p in left])
    last = time.monotonic()
    while left:
        messages = consumer.consume(BATCH, timeout=0.2)
        if messages:
            last = time.monotonic()
        elif time.monotonic() - last > STALL_S:
            raise Retry(f"no records for {STALL_S:.0f} s from {sorted(left)}")
        good, broken = _within(messages, left)
        yield from to_polled(good, reads)
        if broken is not None:
            raise broken
    consumer.unassign()


def _within(
    messages: list[Message], left: dict[tuple[str, int], int]
) -> tuple[list[Message], UnreadableBatch | None]:
    """The records inside their range, up to a batch that cannot be read; strikes out of `left` what has ended.

    The end is known by a record at or behind it, or by the client's word that the partition ends there:
    what stands last can be a transaction's marker, which is never handed out.
    """
    good: list[Message] = []
    for message in messages:
        error = message.error()
        place = (message.topic() or "", message.partition() or 0)
        at = message.offset() or 0
        end = left.get(place)
        if error is not None and error.code() in CANNOT_READ:
            return good, UnreadableBatch(place[0], place[1], error.str())
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise Retry(f"reading {place[0]}/{place[1]}: {error}")
        if end is None:
            continue
        if error is None and at < end:
            good.append(message)
        if at >= (end if error is not None else end - 1):
            del left[place]
    return good, None


def read_topic(
    settings: KafkaSettings, topic: str, starts: Mapping[int, int] | None = None, reads: Reads = PLAIN
) -> Iterator[Polled]:
    """Yield every committed record that the topic holds now, from `starts` or from the beginning."""
    consumer = open_reader(settings)
    try:
        ranges = {}
        for partition in partitions_of(consumer, topic):
            low, high = bounds(consumer, topic, partition)
            ranges[topic, partition] = (max(low, (starts or {}).get(partition, low)), high)
        yield from read_ranges(consumer, ranges, reads)
    finally:
        consumer.close()
