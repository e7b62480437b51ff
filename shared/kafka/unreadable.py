"""Batches that the client cannot read: what they are known by, and how to find where one ends.

A batch that inflates beyond the cap or whose checksum is wrong is not passed by the client: it asks for the same
offset for ever (a broken compression) or goes on at an offset made of garbage (a broken checksum). Nothing that
comes from the partition after the first such error may be used before a seek.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, TopicPartition

from shared.errors import Retry
from shared.kafka.columns import PLAIN, Reads
from shared.kafka.reader import CANNOT_READ, UnreadableBatch, bounds, open_reader, read_ranges
from shared.runtime.polled import Polled
from shared.settings import KafkaSettings

PROBE_S = 2.0
# To learn where a batch begins it need not be unpacked: with small limits the client gives up early. A sound batch
# that is larger fails then too, but at a first offset of its own.
SHORT: dict[str, object] = {
    "message.max.bytes": 1_000_000,
    "fetch.max.bytes": 1_000_000,
    "receive.message.max.bytes": 1_001_000,
    "fetch.wait.max.ms": 10,
    "fetch.error.backoff.ms": 0,
}
SEARCH_S = 4.0


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Offsets `first` up to `next_offset`, not included, of one partition, and the client's word on them."""

    topic: str
    partition: int
    first: int
    next_offset: int
    error: str


def find_unreadable(settings: KafkaSettings, topic: str, partition: int, position: int) -> Unreadable | None:
    """The batch that cannot be read at `position`; None when what stands there can be read.

    Every fetch inside a batch answers with the whole of it, and the client's error carries the offset of its
    first record: an offset belongs to the batch exactly when a read from there fails at that same first record.
    The end is found by doubling and halving: about 20 reads for a batch of 1,000 records.

    Raises:
        Retry: no answer, or no end found within 4 s.
    """
    reader = open_reader(settings)
    try:
        failed = _failure(reader, topic, partition, position)
    finally:
        reader.close()
    if failed is None:
        return None
    begin, error = failed
    short = open_reader(settings, **SHORT)
    try:
        end = _end(short, topic, partition, position, begin)
    finally:
        short.close()
    return Unreadable(topic, partition, max(begin, 0), end, error)


def _end(reader: Consumer, topic: str, partition: int, inside: int, begin: int) -> int:
    """The first offset that is not of the batch that begins at `begin` and holds `inside`."""
    deadline = time.monotonic() + SEARCH_S

    def belongs(offset: int) -> bool:
        if time.monotonic() > deadline:
            raise Retry(
                f"no end of the unreadable batch at {topic}/{partition} offset {begin} in {SEARCH_S} s"
            )
        failed = _failure(reader, topic, partition, offset)
        return failed is not None and failed[0] == begin

    high = bounds(reader, topic, partition)[1]
    step, outside = 1, inside + 1
    while outside < high and belongs(outside):
        inside, step = outside, 2 * step
        outside = inside + step
    outside = min(outside, high)
    while outside - inside > 1:
        middle = (inside + outside) // 2
        if belongs(middle):
            inside = middle
        else:
            outside = middle
    return outside


def _failure(reader: Consumer, topic: str, partition: int, offset: int) -> tuple[int, str] | None:
    """First offset of the batch and the error that a read from `offset` meets; None where it meets none."""
    reader.assign([TopicPartition(topic, partition, offset)])
    deadline = time.monotonic() + PROBE_S
    while time.monotonic() < deadline:
        message = reader.poll(PROBE_S)
        if message is None:
            break
        error = message.error()
        if error is None or error.code() == KafkaError._PARTITION_EOF:
            return None
        if error.code() in CANNOT_READ:
            return message.offset() or 0, error.str()
    raise Retry(f"no answer on {topic}/{partition} offset {offset} in {PROBE_S:.0f} s")


def read_past(
    settings: KafkaSettings, ranges: Mapping[tuple[str, int], tuple[int, int]], reads: Reads = PLAIN
) -> Iterator[Polled]:
    """As `read_ranges`, past what cannot be read: what was skipped once is skipped again by a replay."""
    left = dict(ranges)
    while True:
        reader = open_reader(settings)
        try:
            for polled in read_ranges(reader, left, reads):
                place = (polled.topic, polled.partition)
                left[place] = (int(polled.offsets[-1]) + 1, left[place][1])
                yield polled
            return
        except UnreadableBatch as failure:
            start, end = left[failure.topic, failure.partition]
            found = find_unreadable(settings, failure.topic, failure.partition, start)
            if found is None:
                raise
            left[failure.topic, failure.partition] = (found.next_offset, end)
        finally:
            reader.close()
