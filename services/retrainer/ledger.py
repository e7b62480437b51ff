"""labeled.v1 read by sequence, outside of any group: datasets, rebuilds and positions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from services.retrainer.core.ledger import is_fresh
from services.retrainer.core.triggers import Outcomes
from shared.codec.batch import Batch
from shared.codec.program import Program
from shared.contracts.generated import labeled_schema
from shared.contracts.pipeline import Pipeline
from shared.errors import Fatal, Retry
from shared.kafka.config import client_config
from shared.kafka.reader import bounds, open_reader, read_ranges
from shared.runtime.polled import Polled
from shared.runtime.tables import Table
from shared.settings import KafkaSettings
from shared.topics import ACCEPTED, EVENTS, FEATURES, LABELED, PREDICTIONS, SHADOWS

LINEAGE = {
    EVENTS: "event",
    ACCEPTED: "label",
    FEATURES: "vector",
    PREDICTIONS: "prediction",
    SHADOWS: "prediction",
}
"""Topics that a labeled row names, and the columns `<prefix>_partition` and `<prefix>_offset` that place it."""


@dataclass(frozen=True, slots=True)
class Slab:
    """Rows of the ledger, first to last as asked for, and the offset behind the last one."""

    batch: Batch
    following: int


class Ledger(Protocol):
    """The ledger of one pipeline."""

    @property
    def program(self) -> Program:
        """The codec of its rows."""
        ...

    def topics(self) -> Mapping[str, tuple[str, int]]:
        """Topic id and schema id of labeled.v1 and of every topic that its rows name, by name on the broker."""
        ...

    def read(self, start: int, first: int, last: int) -> Slab:
        """The rows of these sequences, read from offset `start`; Fatal where they are not all there, in order."""
        ...

    def begin(self) -> int:
        """The first offset kept."""
        ...

    def end(self) -> int:
        """The newest sequence, -1 for none."""
        ...


@dataclass(frozen=True, slots=True)
class KafkaLedger:
    """labeled.v1 on the broker."""

    kafka: KafkaSettings
    pipeline: Pipeline
    table: Table
    schema_ids: Mapping[str, int]
    _known: dict[str, tuple[str, int]] = field(default_factory=dict)

    @staticmethod
    def of(kafka: KafkaSettings, pipeline: Pipeline, schema_ids: Mapping[str, int]) -> "KafkaLedger":
        """The pipeline's; its contracts are registered."""
        name = LABELED.of(pipeline.name)
        return KafkaLedger(
            kafka, pipeline, Table.of(name, schema_ids[name], labeled_schema(pipeline)), schema_ids
        )

    @property
    def program(self) -> Program:
        """The codec of its rows."""
        return self.table.program

    def topics(self) -> dict[str, tuple[str, int]]:
        """Topic id and schema id by name; Retry where the broker does not say."""
        if self._known:
            return dict(self._known)
        names = [topic.of(self.pipeline.name) for topic in (LABELED, *LINEAGE)]
        admin = AdminClient(client_config(self.kafka))
        try:
            described = admin.describe_topics(TopicCollection(names), request_timeout=30.0)
            ids = {name: str(future.result().topic_id) for name, future in described.items()}
        except KafkaException as error:
            raise Retry(f"the broker did not describe the pipeline's topics: {error.args[0]}") from error
        self._known.update({name: (ids[name], self.schema_ids[name]) for name in names})
        return dict(self._known)

    def begin(self) -> int:
        """The first offset kept."""
        reader = open_reader(self.kafka)
        try:
            return bounds(reader, self.table.topic, 0)[0]
        finally:
            reader.close()

    def read(self, start: int, first: int, last: int) -> Slab:
        """The rows of these sequences."""
        parts = []
        for batch in self._from(start):
            sequences = batch["sequence"].array
            wanted = (sequences >= first) & (sequences <= last)
            if wanted.any():
                parts.append(batch.take(wanted))
            if len(sequences) and int(sequences[-1]) >= last:
                break
        found = np.concatenate([part["sequence"].array for part in parts]) if parts else np.zeros(0, np.int64)
        if not np.array_equal(found, np.arange(first, last + 1)):
            raise Fatal(
                f"{self.table.topic} does not hold sequences {first} to {last} from offset {start}: "
                f"{len(found)} were found; was the topic made again?"
            )
        batch = Batch.concat(parts)
        return Slab(batch, int(batch["input_offset"].array[-1]) + 1)

    def end(self) -> int:
        """The newest sequence: read backwards, since the last offsets can be transactions' marks."""
        reader = open_reader(self.kafka)
        try:
            low, high = bounds(reader, self.table.topic, 0)
            back = 64
            while high > low:
                start = max(low, high - back)
                places = {(self.table.topic, 0): (start, high)}
                newest = [
                    int(self.table.read(polled)["sequence"].array[-1])
                    for polled in read_ranges(reader, places)
                ]
                if newest:
                    return newest[-1]
                if start == low:
                    return -1
                back *= 8
            return -1
        finally:
            reader.close()

    def _from(self, start: int) -> Iterator[Batch]:
        reader = open_reader(self.kafka)
        try:
            low, high = bounds(reader, self.table.topic, 0)
            for polled in read_ranges(reader, {(self.table.topic, 0): (max(low, start), high)}):
                yield self.table.read(polled)
        finally:
            reader.close()


def order_time_of(ledger: Ledger, sequence: int) -> int:
    """One row's, in ms: it stands at no lesser offset than its number, since only marks stand between rows."""
    return int(ledger.read(sequence, sequence, sequence).batch["order_time"].array[0])


def outcomes_of(table: Table, polled: Polled) -> Outcomes:
    """Records of labeled.v1 as triggers look at them."""
    return outcomes(table.read(polled))


def outcomes(batch: Batch) -> Outcomes:
    """Rows of labeled.v1 as triggers look at them."""
    return Outcomes(
        batch["sequence"].array,
        batch["order_time"].array,
        batch["label_class"].array,
        is_fresh(batch["role"].strings, batch["previous_class"].array),
    )
