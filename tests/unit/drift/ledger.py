"""Records of labeled.v1 and profiles.v1, made from few columns."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from shared.codec.batch import Batch, Floats, Ints, Strings
from shared.contracts.generated import labeled_schema
from shared.contracts.pipeline import Pipeline, find_pipeline, load_pipeline
from shared.contracts.policies import RetrainPolicy
from shared.control.records import Records
from shared.runtime.polled import Polled
from shared.runtime.tables import Table, empty_rows
from shared.topics import DRIFT, LABELED, PROFILES


def learning(name: str = "elec2", classes: tuple[str, ...] | None = None) -> Pipeline:
    """Elec2 with the loop declared, with other classes if they are given."""
    pipeline = load_pipeline(find_pipeline("elec2"))
    policy = pipeline.policy.model_copy(update={"retrain": RetrainPolicy.model_validate({})})
    label = pipeline.label
    if classes is not None and label is not None:
        label = label.model_copy(update={"classes": classes, "positive": classes[-1]})
    return pipeline.model_copy(update={"name": name, "policy": policy, "label": label})


def tables(pipeline: Pipeline, ids: Mapping[str, int] | None = None) -> tuple[Table, Records, Records]:
    """labeled.v1, profiles.v1 and drift.v1."""
    names = [topic.of(pipeline.name) for topic in (LABELED, PROFILES, DRIFT)]
    known = ids or {name: at + 1 for at, name in enumerate(names)}
    table = Table.of(names[0], known[names[0]], labeled_schema(pipeline))
    return table, Records.of(PROFILES, pipeline.name, known), Records.of(DRIFT, pipeline.name, known)


def outcomes(
    pipeline: Pipeline, table: Table, errors: Ints, start: int = 0, seed: int = 1, **more: Any
) -> Batch:
    """One outcome a row of `errors` (1: the answer was wrong), a minute apart, sequences from `start` on."""
    count = errors.size
    rng = np.random.default_rng([seed, start])
    known = rng.integers(0, 2, count)
    said = np.where(errors == 1, 1 - known, known)
    score: Floats = np.clip(said * 0.6 + 0.2 + rng.normal(scale=0.05, size=count), 0.01, 0.99)
    texts = {
        spec.name: Strings.repeated(b"", count)
        for spec in table.program.columns
        if spec.kind in ("string", "bytes")
    }
    features = {f"features.{name}": rng.normal(size=count) for name in pipeline.feature_names}
    sequence = np.arange(start, start + count)
    columns: dict[str, Any] = {
        **texts,
        **features,
        "sequence": sequence,
        "order_time": sequence * 60_000,
        "kind": np.zeros(count, np.int32),
        "label_class": known,
        "previous_class": np.full(count, -1),
        "predicted_class": said,
        "score": score,
        "role": Strings.repeated(b"champion", count),
        "model_version": np.ones(count, np.int64),
        "probabilities": Strings.repeated(b"\0", count),
        **more,
    }
    return empty_rows(table.program, count).having(**columns)


def polled(topic: str, values: Strings, offsets: Ints) -> Polled:
    """Values as a handler is given them."""
    none = np.zeros(len(values), np.bool_)
    return Polled(topic, 0, Strings.repeated(b"", len(values)), none, values, none, offsets, offsets)


def profile(pipeline: Pipeline, number: int, unit: int = 0) -> dict[str, Any]:
    """A profile of a thousand rows in two buckets."""
    column = {
        "buckets": [4092, 4096],
        "counts": [600, 400],
        "zeros": 0,
        "missing": 0,
        "minimum": 1.0,
        "maximum": 2.2,
    }
    return {
        "unit": unit,
        "number": number,
        "rows": 1_000,
        "first_order_time": number * 1_000,
        "order_time": number * 1_000 + 999,
        "names": list(pipeline.feature_names),
        "columns": [column] * len(pipeline.feature_names),
    }
