"""Reads what the loop left on a pipeline's topics, for the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from schemas import platform_schema
from services.cli.journey import read_rows
from services.cli.story import Answers, Ledger, Record, Story, Telling
from services.cli.telling import tell
from shared.codec.batch import Batch, Ints, Mask, Strings
from shared.contracts.generated import labeled_schema
from shared.contracts.pipeline import Pipeline
from shared.control.records import Records
from shared.errors import Refused
from shared.kafka.reader import read_topic
from shared.runtime.tables import Table
from shared.settings import PlatformSettings
from shared.topics import AUDIT, DRIFT, LABELED, PREDICTIONS, RUNS, Topic

WINDOW = 1_000


@dataclass(frozen=True, slots=True)
class Chronicle:
    """All that is told of: figures by event, and the records that stand among them."""

    pipeline: Pipeline
    telling: Telling
    alarms: Sequence[Record]
    runs: Sequence[Record]
    audit: Sequence[Record]

    def story(self, begin: int = 0, end: int | None = None) -> Story:
        """The story of events `begin` to `end`."""
        return tell(self.pipeline.name, self.telling, self.alarms, self.runs, self.audit, begin, end)


def read_chronicle(
    platform: PlatformSettings, pipeline: Pipeline, schema_ids: Mapping[str, int], window: int = WINDOW
) -> Chronicle:
    """Read predictions, outcomes, alarms, runs and decisions.

    Raises:
        Refused: the pipeline has no label, so that there is nothing to learn from.
    """
    if pipeline.label is None:
        raise Refused(f"{pipeline.name} declares no [label]; without outcomes there is no loop to report on")
    positive = pipeline.label.class_index(pipeline.label.positive)
    telling = Telling(
        _answers(platform, pipeline, schema_ids),
        _ledger(platform, pipeline, schema_ids),
        classes=len(pipeline.label.classes),
        positive=1 if positive is None else positive,
        window=window,
    )
    alarms, runs, audit = (_records(platform, pipeline, schema_ids, topic) for topic in (DRIFT, RUNS, AUDIT))
    return Chronicle(pipeline, telling, alarms, runs, audit)


def _answers(platform: PlatformSettings, pipeline: Pipeline, schema_ids: Mapping[str, int]) -> Answers:
    topic = PREDICTIONS.of(pipeline.name)
    table = Table.of(topic, schema_ids[topic], platform_schema("prediction"))
    ints = ["order_time", "source_partition", "source_offset", "model_version", "registry_offset"]
    rows = read_rows(platform, table, [*ints, "role", "predicted_class", "score"])
    if not rows.rows:
        raise Refused(f"{topic} holds no prediction yet; send events first")
    order_time, partition, offset, version, registry_offset = (_ints(rows, name) for name in ints)
    champion = _is(rows["role"].strings, b"champion")
    predicted, score = _ints(rows, "predicted_class"), rows["score"].array
    return Answers(
        order_time, partition, offset, version, registry_offset, champion, predicted, score
    ).ordered()


def _ledger(platform: PlatformSettings, pipeline: Pipeline, schema_ids: Mapping[str, int]) -> Ledger:
    topic = LABELED.of(pipeline.name)
    table = Table.of(topic, schema_ids[topic], labeled_schema(pipeline))
    ints = ["order_time", "event_partition", "event_offset", "label_class"]
    rows = read_rows(platform, table, [*ints, "role"])
    if not rows.rows:
        none = np.empty(0, np.int64)
        return Ledger(none, none, none, none, np.empty(0, np.bool_))
    order_time, partition, offset, outcome = (_ints(rows, name) for name in ints)
    return Ledger(order_time, partition, offset, outcome, ~_is(rows["role"].strings, b"shadow"))


def _ints(rows: Batch, name: str) -> Ints:
    return rows[name].array.astype(np.int64)


def _is(texts: Strings, wanted: bytes) -> Mask:
    return np.array([each == wanted for each in texts.to_list()], np.bool_)


def _records(
    platform: PlatformSettings, pipeline: Pipeline, schema_ids: Mapping[str, int], topic: Topic
) -> list[Record]:
    records = Records.of(topic, pipeline.name, schema_ids)
    return [row for polled in read_topic(platform.kafka, records.topic) for row in records.read(polled)]
