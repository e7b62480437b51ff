"""Reads what training needs from the topics: vectors, outcomes, and the offsets that they came from."""

import time
from dataclasses import dataclass, field

from pydantic import JsonValue

from services.retrainer.core.dataset import Outcomes, Vectors, join
from services.retrainer.core.train import Dataset
from shared.contracts.generated import accepted_schema, features_schema
from shared.contracts.pipeline import Label, Pipeline
from shared.errors import Refused
from shared.kafka.reader import read_topic
from shared.models.building import Features
from shared.runtime.polled import Polled
from shared.runtime.tables import Table
from shared.settings import KafkaSettings
from shared.topics import ACCEPTED, FEATURES

POLL_S = 1.0


@dataclass(slots=True)
class _Range:
    """The offsets read of one topic: by partition the first and the one behind the last."""

    table: Table
    first: dict[int, int] = field(default_factory=dict)
    following: dict[int, int] = field(default_factory=dict)

    def add(self, polled: Polled) -> None:
        self.first.setdefault(polled.partition, int(polled.offsets[0]))
        self.following[polled.partition] = int(polled.offsets[-1]) + 1

    def describe(self) -> JsonValue:
        offsets: dict[str, JsonValue] = {
            str(p): [self.first[p], self.following[p]] for p in sorted(self.first)
        }
        return {"topic": self.table.topic, "offsets": offsets}


class Gatherer:
    """What one pipeline's topics hold, read on each `more()` from where the last one ended."""

    def __init__(self, kafka: KafkaSettings, pipeline: Pipeline, schema_ids: dict[str, int]) -> None:
        if pipeline.label is None:
            raise Refused(f"{pipeline.name} declares no [label]; a model needs outcomes to learn from")
        self._kafka, self._pipeline, self._label = kafka, pipeline, pipeline.label
        features, accepted = FEATURES.of(pipeline.name), ACCEPTED.of(pipeline.name)
        self._features = _Range(Table.of(features, schema_ids[features], features_schema(pipeline)))
        self._accepted = _Range(Table.of(accepted, schema_ids[accepted], accepted_schema(pipeline)))
        self._vectors: list[Vectors] = []
        self._outcomes: list[Outcomes] = []

    def more(self) -> None:
        """Read what has been committed since the last call."""
        names = self._pipeline.feature_names
        for polled in read_topic(self._kafka, self._features.table.topic, self._features.following):
            self._features.add(polled)
            self._vectors.append(Vectors.of(self._features.table.read(polled), names))
        symbols = self._accepted.table.program.symbols.get(f"label.{self._label.field}", ())
        for polled in read_topic(self._kafka, self._accepted.table.topic, self._accepted.following):
            self._accepted.add(polled)
            self._outcomes.append(Outcomes.of(self._accepted.table.read(polled), self._label, symbols))

    def dataset(self) -> Dataset | None:
        """What has been read, joined; None while nothing can be."""
        if not self._vectors or not self._outcomes:
            return None
        label: Label = self._label
        matrix, labels = join(Vectors.concat(self._vectors), Outcomes.concat(self._outcomes), label)
        pipeline = self._pipeline
        source: dict[str, JsonValue] = {
            "pipeline": pipeline.name,
            "features": self._features.describe(),
            "labels": self._accepted.describe(),
        }
        features = Features(pipeline.feature_names, pipeline.feature_fingerprint)
        return Dataset(features, matrix, labels, source)

    def wait(self, min_rows: int, timeout_s: float) -> Dataset:
        """Read until `min_rows` have an outcome; Refused, with what there is, when time runs out."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.more()
            data = self.dataset()
            if data is not None and len(data.labels) >= min_rows:
                return data
            if time.monotonic() >= deadline:
                vectors = sum(len(part.ids) for part in self._vectors)
                labels = sum(len(part.ids) for part in self._outcomes)
                joined = 0 if data is None else len(data.labels)
                raise Refused(
                    f"{joined} rows with an outcome after {timeout_s:g} s, {min_rows} are wanted "
                    f"({vectors} vectors on {self._features.table.topic}, {labels} labels on "
                    f"{self._accepted.table.topic}); send more, wait longer (--timeout) or ask for fewer "
                    "(--min-rows)"
                )
            time.sleep(POLL_S)
