"""One stage of a pipeline's features, as a fold over rows in merged order."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from services.features.core.digest import canonical
from services.features.core.labels import LabelReader
from services.features.core.spec import LABEL, Aggregate, WindowSpec
from services.features.core.windows import EVENT, LABEL_ROW, EntityWindows, WindowCounts
from shared.codec.batch import Batch, Column, Floats, Mask, Strings
from shared.codec.hashing import vector_hashes
from shared.contracts.expressions import Expression, compile_expression
from shared.contracts.generated import stage_schema
from shared.contracts.pipeline import Pipeline
from shared.contracts.tables import WindowFeature

_ENVELOPE = ("order_time", "late", "source_partition", "source_offset")
_LINEAGE = (*_ENVELOPE, "input_partition", "input_offset")


class FeatureFold:
    """Stage number `stage` of `pipeline`, for the unit (input partition) `unit`.

    Rows come in the layout of the stage's input topic with `input_partition` and `input_offset` added, and
    leave in that of its output topic: vectors from the last stage, events and labels from the others. The
    first stage computes the expressions too. Restored from a snapshot it goes on bit-equal.
    """

    def __init__(self, pipeline: Pipeline, stage: int, unit: int) -> None:
        self._pipeline, self._stage, self._unit = pipeline, stage, unit
        self._last = stage == len(pipeline.entities) - 1
        self._key = pipeline.entities[stage].key
        self._features = pipeline.windows_of(stage)
        self._numbers, self._distinct = _fields_of(self._features)
        self._expressions: dict[str, Expression] = {}
        if stage == 0:
            kinds = pipeline.event.kinds
            self._expressions = {
                e.name: compile_expression(e.expression, kinds) for e in pipeline.expressions
            }
        uses_labels = pipeline.entities[stage].uses_labels and pipeline.label is not None
        self._labels = LabelReader(pipeline.label) if uses_labels and pipeline.label is not None else None
        self._windows = EntityWindows(
            [self._spec(feature) for feature in self._features],
            len(self._numbers),
            pipeline.allowed_lateness_ms,
            len(self._distinct),
            positive=1 if self._labels is None else self._labels.positive,
        )
        self._outputs = () if self._last else _stage_columns(pipeline, stage)

    def step(self, batch: Batch) -> Batch:
        """Fold the rows; the rows for the output topic, in the same order."""
        if batch.rows == 0:
            return Batch()
        events = batch["event"].array.astype(np.bool_, copy=False)
        all_events = bool(events.all())
        only = batch if all_events else batch.take(events)
        known = self._carried(only)
        known |= {name: self._expression(name, only) for name in self._expressions}
        if self._features:
            matrix = self._window(batch, events) if self._labels is not None else self._window_events(only)
            known |= {feature.name: matrix[:, at] for at, feature in enumerate(self._features)}
        if self._last:
            return self._vectors(only, known)
        return self._passed(batch, events, all_events, known)

    def counts(self) -> WindowCounts:
        """What the windows folded and hold."""
        return self._windows.counts()

    def nbytes(self) -> int:
        """Bytes of memory that the windows hold."""
        return self._windows.nbytes()

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """The state as plain arrays."""
        return self._windows.snapshot() if self._features else {}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take up a state that `snapshot` gave; ValueError when it was made for other features."""
        if self._features:
            self._windows.restore(arrays)

    def digest(self) -> str:
        """SHA-256 (hex) over what the state means."""
        return self._windows.digest() if self._features else hashlib.sha256().hexdigest()

    def _spec(self, feature: WindowFeature) -> WindowSpec:
        aggregate = Aggregate(feature.aggregate)
        field = None
        if feature.field == "label":
            field = LABEL
        elif feature.field is not None:
            names = self._distinct if aggregate is Aggregate.DISTINCT else self._numbers
            field = names.index(feature.field)
        return WindowSpec(aggregate, field, feature.window_ms, feature.delay_ms, feature.default)

    def _carried(self, events: Batch) -> dict[str, Floats]:
        """The features that earlier stages computed."""
        if self._stage == 0:
            return {}
        names = self._pipeline.computed_after(self._stage - 1)
        return {name: events[f"event.features.{name}"].array for name in names}

    def _expression(self, name: str, events: Batch) -> Floats:
        expression = self._expressions[name]
        fields = expression.fields or (self._pipeline.event.time,)
        return expression.evaluate({field: _numbers(events[f"event.{field}"]) for field in fields})

    def _window_events(self, events: Batch) -> Floats:
        """The stage's window features, of a batch of events alone."""
        event = self._pipeline.event
        return self._windows.step(
            np.full(events.rows, EVENT, np.uint8),
            events[f"event.{self._key}"].strings,
            events[f"event.{event.time}"].array,
            events[f"event.{event.id}"].strings,
            self._values(events),
            [events[f"event.{field}"] for field in self._distinct],
        )

    def _window(self, batch: Batch, events: Mask) -> Floats:
        """The stage's window features, with the labels that came between the events."""
        event, label = self._pipeline.event, self._pipeline.label
        if self._labels is None or label is None:
            raise TypeError("this stage uses no labels")
        labels = batch["label"].array.astype(np.bool_, copy=False)
        said = self._labels.read(batch[f"label.{label.field}"], labels)
        rows = events | ~np.isnan(said)
        if not rows.all():
            batch, events, said = batch.take(rows), events[rows], said[rows]
        return self._windows.step(
            np.where(events, EVENT, LABEL_ROW).astype(np.uint8),
            _either(batch, events, f"event.{self._key}", f"label.{self._key}"),
            np.where(events, batch[f"event.{event.time}"].array, batch[f"label.{label.time}"].array),
            _either(batch, events, f"event.{event.id}", f"label.{label.id}"),
            self._values(batch),
            [batch[f"event.{field}"] for field in self._distinct],
            said,
        )

    def _values(self, batch: Batch) -> Floats:
        values = np.empty((batch.rows, len(self._numbers)), np.float64)
        for at, field in enumerate(self._numbers):
            values[:, at] = _numbers(batch[f"event.{field}"])
        return values

    def _vectors(self, events: Batch, known: Mapping[str, Floats]) -> Batch:
        """The rows of features.v1."""
        event, names = self._pipeline.event, self._pipeline.feature_names
        matrix = np.empty((events.rows, len(names)), np.float64)
        for at, name in enumerate(names):
            matrix[:, at] = known[name]
        matrix = canonical(matrix)
        columns: dict[str, Column] = {
            "event_id": Column(events[f"event.{event.id}"].values),
            "key": Column(events[f"event.{event.key}"].values),
            "event_time": Column(events[f"event.{event.time}"].values),
            **{name: events[name] for name in _LINEAGE},
            "feature_hash": Column(vector_hashes(matrix)),
            **{f"features.{name}": Column(matrix[:, at]) for at, name in enumerate(names)},
        }
        return Batch(columns, events.rows)

    def _passed(self, batch: Batch, events: Mask, all_events: bool, known: Mapping[str, Floats]) -> Batch:
        """Events with what is known of them, and the labels that later stages use."""
        features = {
            name: Column(known[name] if all_events else _spread(known[name], events), events)
            for name in self._pipeline.computed_after(self._stage)
        }
        columns = {name: batch[name] for name in (*_ENVELOPE, *self._outputs)}
        columns |= {f"event.features.{name}": column for name, column in features.items()}
        nothing = np.zeros(batch.rows, np.bool_)
        columns["unit"] = Column(np.full(batch.rows, self._unit, np.int64))
        columns["progress"] = Column(nothing)
        columns["progress.idle"] = Column(nothing, nothing)
        rows = Batch(columns, batch.rows)
        return rows if "label" in columns else rows.take(events)


def _fields_of(features: Sequence[WindowFeature]) -> tuple[list[str], list[str]]:
    """The fields read as numbers, and those of which different values are counted, each once."""
    fields = [
        (f.field, Aggregate(f.aggregate) is Aggregate.DISTINCT)
        for f in features
        if f.field not in (None, "label")
    ]
    numbers = dict.fromkeys(field for field, distinct in fields if field is not None and not distinct)
    distinct = dict.fromkeys(field for field, distinct in fields if field is not None and distinct)
    return list(numbers), list(distinct)


def _stage_columns(pipeline: Pipeline, stage: int) -> tuple[str, ...]:
    """The columns of a stage's output that its input has too."""
    names: list[str] = []
    for part in stage_schema(pipeline, stage)["fields"]:
        if part["name"] in ("event", "label"):
            record = part["type"][1]
            inner = [field["name"] for field in record["fields"] if field["name"] != "features"]
            names += [part["name"], *(f"{part['name']}.{name}" for name in inner)]
    return tuple(names)


def _numbers(column: Column) -> Floats:
    """A field as float64, NaN where it is null."""
    values = column.array.astype(np.float64)
    if column.valid is not None and not column.valid.all():
        values[~column.valid] = np.nan
    return values


def _either(batch: Batch, events: Mask, event: str, label: str) -> Strings:
    """A text of the event or of the label, whichever the row is; copies only these texts."""
    if events.all():
        return batch[event].strings
    yes, no = batch[event].strings, batch[label].strings
    if yes.data is no.data:
        return Strings.choose(events, yes, no)
    parts = Strings.concat([yes.take(events), no.take(~events)])
    place = np.where(events, np.cumsum(events) - 1, np.count_nonzero(events) + np.cumsum(~events) - 1)
    return parts.take(place)


def _spread(values: Floats, events: Mask) -> Floats:
    """Values of the event rows, over all rows."""
    out = np.zeros(events.size, np.float64)
    out[events] = values
    return out
