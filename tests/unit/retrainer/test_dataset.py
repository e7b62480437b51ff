from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import FOLDER
from services.cli.models import spec_of
from services.retrainer.core.dataset import Outcomes, Vectors, join, positives
from shared.codec.batch import Batch, Column, Strings
from shared.contracts.pipeline import Label, load_pipeline

FRAUD = load_pipeline(FOLDER / "fraud")
NAMES = ("a", "b")


def _label(missing: int | None = None) -> Label:
    assert FRAUD.label is not None
    return FRAUD.label.model_copy(update={"missing": missing, "horizon_ms": 100})


def _vectors(rows: list[tuple[int, int]]) -> Vectors:
    """Rows of (event number, order time); the features are the event's number and its place in the list."""
    count = len(rows)
    columns: dict[str, Any] = {
        "event_id": Strings.of([f"e{number}".encode() for number, _ in rows]),
        "order_time": np.array([time for _, time in rows], np.int64),
        "event_time": np.array([time for _, time in rows], np.int64),
        "source_partition": np.zeros(count, np.int64),
        "source_offset": np.arange(count, dtype=np.int64),
        "features.a": np.array([float(number) for number, _ in rows], np.float64),
        "features.b": np.arange(count, dtype=np.float64),
    }
    return Vectors.of(Batch.of(columns), NAMES)


def _outcomes(rows: list[tuple[int, bool] | None], order_time: int = 0) -> Outcomes:
    """Rows of accepted.v1: a label of an event number, or None for an event."""
    present = np.array([row is not None for row in rows], np.bool_)
    numbers = [row or (0, False) for row in rows]
    columns: dict[str, Any] = {
        "order_time": np.full(len(rows), order_time, np.int64),
        "label": Column(present),
        "label.transaction_id": Column(Strings.of([f"e{n}".encode() for n, _ in numbers]), present),
        "label.tx_fraud": Column(np.array([int(y) for _, y in numbers], np.int64), present),
    }
    return Outcomes.of(Batch.of(columns), _label())


VECTORS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 5)), unique_by=lambda row: row[0], max_size=25
)
LABELS = st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 30), st.booleans())), max_size=25)


@settings(deadline=None)
@given(VECTORS, LABELS)
def test_join_equals_a_dictionary(
    vectors: list[tuple[int, int]], labels: list[tuple[int, bool] | None]
) -> None:
    matrix, truth = join(_vectors(vectors), _outcomes(labels), _label())
    known: dict[int, bool] = {}
    for row in labels:
        if row is not None:
            known.setdefault(*row)
    placed = sorted((time, place, number) for place, (number, time) in enumerate(vectors) if number in known)
    assert matrix.tolist() == [[float(number), float(place)] for _, place, number in placed]
    assert truth.tolist() == [known[number] for _, _, number in placed]


def test_parts_join_like_the_whole() -> None:
    vectors, labels = [(n, 50 - n) for n in range(20)], [(n, n % 3 == 0) for n in range(0, 20, 2)]
    whole = join(_vectors(vectors), _outcomes([*labels]), _label())
    first, second = _vectors(vectors[:7]), _vectors(vectors[7:])
    second = replace(
        second, places=second.places + np.array([0, 0, 7]), matrix=second.matrix + np.array([0, 7])
    )
    parts = [_outcomes([*labels[:4]]), _outcomes([]), _outcomes([*labels[4:]])]
    joined = join(Vectors.concat([first, second]), Outcomes.concat(parts), _label())
    np.testing.assert_array_equal(joined[0], whole[0])
    np.testing.assert_array_equal(joined[1], whole[1])


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_label_counts_as_declared_once_its_horizon_has_passed(missing: int) -> None:
    vectors = [(1, 899), (2, 900), (3, 901), (4, 10)]
    matrix, truth = join(_vectors(vectors), _outcomes([(4, True)], order_time=1_000), _label(missing))
    assert matrix[:, 0].tolist() == [4.0, 1.0, 2.0]
    assert truth.tolist() == [True, bool(missing), bool(missing)]


def test_the_positive_class_is_found_in_every_kind_of_label() -> None:
    texts = _label().model_copy(update={"positive": "UP", "classes": ("DOWN", "UP")})
    column = Column(Strings.of([b"UP", b"DOWN", b"UPP", b""]))
    assert positives(column, texts).tolist() == [True, False, False, False]
    assert positives(Column(np.array([1, 0, 1])), texts, ("DOWN", "UP")).tolist() == [True, False, True]
    assert positives(Column(np.array([1, 0, 2])), _label()).tolist() == [True, False, False]


def test_the_declared_architecture_is_trained() -> None:
    assert spec_of(FRAUD).architecture.name == FRAUD.model.architecture
    assert spec_of(FRAUD).architecture.inputs == len(FRAUD.feature_names)
    linear = FRAUD.model_copy(update={"model": FRAUD.model.model_copy(update={"architecture": "linear"})})
    assert spec_of(linear).architecture.name == "linear"
