"""Client messages to columns: the only per-record Python on the way in."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from confluent_kafka import Message

from shared.codec.batch import Mask, Strings
from shared.runtime.polled import Headers, Polled


@dataclass(frozen=True, slots=True)
class Reads:
    """Which parts of a message are read besides value and place: each costs a tenth of a microsecond."""

    keys_and_times: bool = True
    headers: bool = False


PLAIN = Reads()


def to_polled(messages: Sequence[Message], reads: Reads = PLAIN) -> list[Polled]:
    """Group messages by partition, in offset order; what is not read is empty, null or zero.

    The messages carry no client error: the caller has dealt with those.
    """
    if not messages:
        return []
    topics = [m.topic() for m in messages]
    partitions = [m.partition() for m in messages]
    topic, partition = topics[0], partitions[0]
    if topics.count(topic) == len(topics) and partitions.count(partition) == len(partitions):
        return [_columns(topic or "", partition or 0, messages, reads)]
    groups: dict[tuple[str | None, int | None], list[Message]] = defaultdict(list)
    for place, message in zip(zip(topics, partitions, strict=True), messages, strict=True):
        groups[place].append(message)
    return [_columns(t or "", p or 0, rows, reads) for (t, p), rows in groups.items()]


def _columns(topic: str, partition: int, rows: Sequence[Message], reads: Reads) -> Polled:
    count = len(rows)
    keys, key_null = Strings.repeated(b"", count), np.ones(count, np.bool_)
    timestamps = np.zeros(count, np.int64)
    if reads.keys_and_times:
        keys, key_null = _texts([m.key() for m in rows])
        timestamps = np.array([m.timestamp()[1] for m in rows], np.int64)
    values, value_null = _texts([m.value() for m in rows])
    headers = [cast(Headers | None, m.headers()) for m in rows] if reads.headers else None
    return Polled(
        topic=topic,
        partition=partition,
        keys=keys,
        key_null=key_null,
        values=values,
        value_null=value_null,
        offsets=np.array([m.offset() for m in rows], np.int64),
        timestamps=timestamps,
        headers=headers if headers is not None and headers.count(None) < count else None,
    )


def _texts(found: list[bytes | None]) -> tuple[Strings, Mask]:
    if None in found:
        null = np.array([each is None for each in found], np.bool_)
        return Strings.of([each or b"" for each in found]), null
    return Strings.of(cast(list[bytes], found)), np.zeros(len(found), np.bool_)
