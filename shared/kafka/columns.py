"""Client messages to columns: the only per-record Python on the way in."""

from collections import defaultdict
from collections.abc import Iterable
from typing import cast

import numpy as np
from confluent_kafka import Message

from shared.codec.batch import Strings
from shared.runtime.polled import Headers, Polled


def to_polled(messages: Iterable[Message], headers: bool = False) -> list[Polled]:
    """Group messages by partition, in offset order; headers are read only when asked for, since that costs.

    The messages carry no client error: the caller has dealt with those.
    """
    groups: dict[tuple[str, int], list[Message]] = defaultdict(list)
    for message in messages:
        groups[message.topic() or "", message.partition() or 0].append(message)
    return [_columns(topic, partition, rows, headers) for (topic, partition), rows in groups.items()]


def _columns(topic: str, partition: int, rows: list[Message], headers: bool) -> Polled:
    keys = [m.key() for m in rows]
    values = [m.value() for m in rows]
    count = len(rows)
    read = [cast(Headers | None, m.headers()) for m in rows] if headers else None
    return Polled(
        topic=topic,
        partition=partition,
        keys=Strings.of([k or b"" for k in keys]),
        key_null=np.fromiter((k is None for k in keys), np.bool_, count),
        values=Strings.of([v or b"" for v in values]),
        value_null=np.fromiter((v is None for v in values), np.bool_, count),
        offsets=np.fromiter((m.offset() for m in rows), np.int64, count),
        timestamps=np.fromiter((m.timestamp()[1] for m in rows), np.int64, count),
        headers=read if read is not None and any(h is not None for h in read) else None,
    )
