"""The newest feature vector per key in Redis: one packed value a key, with where it comes from.

Little-endian: order time and event time (int64 ms), source partition (int32), source offset (int64), then the
vector as doubles in declared order. The view is outside every transaction: it is written from committed
records only, and the offset beside the value says how old it is.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import redis

from shared.codec.batch import Batch
from shared.codec.hashing import xxh64_strings
from shared.errors import Retry

HEAD = struct.Struct("<qqiq")
HEAD_TYPE = np.dtype([("order", "<i8"), ("event", "<i8"), ("partition", "<i4"), ("offset", "<i8")])


@dataclass(frozen=True, slots=True)
class Entry:
    """One key's newest vector; times in milliseconds UTC."""

    order_time: int
    event_time: int
    source_partition: int
    source_offset: int
    values: tuple[float, ...]


def _prefix(pipeline: str) -> bytes:
    return f"millrace:{pipeline}:features:".encode()


def newest_rows(batch: Batch) -> Batch:
    """Of each key only the last row."""
    hashes = xxh64_strings(batch["key"].strings, 0)
    _, first = np.unique(hashes[::-1], return_index=True)
    return batch.take(batch.rows - 1 - first)


class FeatureView:
    """Read and write access to one pipeline's view."""

    def __init__(self, url: str, pipeline: str, feature_names: Sequence[str]) -> None:
        self._redis = redis.Redis.from_url(url, socket_timeout=2.0, socket_connect_timeout=2.0)
        self._pipeline = pipeline
        self._names = tuple(feature_names)

    def write(self, batch: Batch) -> int:
        """Write rows in the features layout, one a key; return how many. Retry when Redis is away."""
        head = np.empty(batch.rows, HEAD_TYPE)
        head["order"] = batch["order_time"].array
        head["event"] = batch["event_time"].array
        head["partition"] = batch["source_partition"].array
        head["offset"] = batch["source_offset"].array
        matrix = np.stack([batch[f"features.{name}"].array for name in self._names], axis=1).astype("<f8")
        prefix = _prefix(self._pipeline)
        keys = batch["key"].strings.to_list()
        rows = {prefix + k: head[i].tobytes() + matrix[i].tobytes() for i, k in enumerate(keys)}
        try:
            self._redis.mset(rows)
        except redis.RedisError as error:
            raise Retry(f"the feature view was not written: {error}") from error
        return len(rows)

    def read(self, key: str) -> Entry | None:
        """The newest vector of `key`; Retry when Redis does not answer or holds something else there."""
        try:
            raw = self._redis.get(_prefix(self._pipeline) + key.encode())
        except redis.RedisError as error:
            raise Retry(f"the feature view did not answer: {error}; is Redis running?") from error
        if raw is None:
            return None
        if not isinstance(raw, bytes) or len(raw) != HEAD.size + 8 * len(self._names):
            raise Retry(f"the view holds something else for {key!r}: it was written for other features")
        values = np.frombuffer(raw, "<f8", offset=HEAD.size).tolist()
        order_time, event_time, partition, offset = HEAD.unpack_from(raw)
        return Entry(order_time, event_time, partition, offset, tuple(values))
