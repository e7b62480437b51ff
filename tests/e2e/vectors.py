"""Feature vectors for an inference service that runs alone."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
from confluent_kafka import Producer

from services.cli.journey import Journey
from shared.codec.batch import Batch, Floats, Strings
from shared.codec.hashing import partition_of
from shared.contracts.generated import features_schema
from shared.kafka.transactions import producer_config
from shared.runtime.tables import Table
from shared.topics import FEATURES
from tests.e2e.traffic import now_ms

ROWS_A_TICK = 20
TICK_S = 0.1


class Vectors:
    """Writes feature vectors as the features service would."""

    def __init__(self, journey: Journey) -> None:
        topic = FEATURES.of(journey.pipeline.name)
        self._table = Table.of(topic, journey.schema_ids[topic], features_schema(journey.pipeline))
        self._names = journey.pipeline.feature_names
        self._partitions = journey.pipeline.partitions
        self._producer = Producer(producer_config(journey.platform.kafka, "none"))
        self._numbers = count()
        self.ids: list[str] = []

    def send(self, matrix: Floats) -> list[str]:
        """One event a row; their ids."""
        numbers = [next(self._numbers) for _ in matrix]
        ids = [f"v{number:06d}" for number in numbers]
        keys = Strings.of([f"k{number % 50}".encode() for number in numbers])
        values = self._table.write(self._rows(ids, keys, matrix)).to_list()
        places = partition_of(keys, self._partitions).tolist()
        for value, key, place in zip(values, keys.to_list(), places, strict=True):
            self._producer.produce(self._table.topic, value, key, place)
        self._producer.flush(30.0)
        self.ids += ids
        return ids

    def _rows(self, ids: Sequence[str], keys: Strings, matrix: Floats) -> Batch:
        rows = len(ids)
        columns: dict[str, Any] = {
            "event_id": Strings.of([each.encode() for each in ids]),
            "key": keys,
            "late": np.zeros(rows, np.bool_),
        }
        for name in ("event_time", "order_time"):
            columns[name] = np.full(rows, now_ms(), np.int64)
        numbers = (
            "source_partition",
            "source_offset",
            "input_partition",
            "input_offset",
            "feature_hash",
        )
        columns |= {name: np.zeros(rows, np.int64) for name in numbers}
        return Batch.of(columns | {f"features.{n}": matrix[:, i].copy() for i, n in enumerate(self._names)})

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Small vectors beside the block, 200 a second."""
        stop = threading.Event()
        chance = np.random.default_rng(58)

        def run() -> None:
            while not stop.wait(TICK_S):
                self.send(chance.random((ROWS_A_TICK, len(self._names))))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
