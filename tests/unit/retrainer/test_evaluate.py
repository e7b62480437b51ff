"""Candidate against champion: the same rows for both, by slice and source; what was seen before is said."""

from typing import Any

import numpy as np
import pytest

from services.retrainer.core.evaluate import (
    OTHERS,
    Bout,
    Classes,
    by_part,
    evidence_of,
    fair_rows,
    slice_bits,
    source_index,
)
from services.retrainer.core.ledger import LearningRows
from services.retrainer.core.reference import reference_column
from shared.contracts.policies import Slice
from shared.models.evidence import MAX_ROWS, MAX_SOURCES, pack, unpack


def rows_of(count: int, sources: tuple[str, ...] = ("",), **more: Any) -> LearningRows:
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {
        "sequences": np.arange(count, dtype=np.int64) * 2,
        "ids": np.arange(count, dtype=np.uint64),
        "classes": rng.integers(0, 2, count),
        "event_times": np.arange(count, dtype=np.int64),
        "sources": sources,
        "source": np.arange(count) % len(sources),
        "matrix": rng.normal(size=(count, 2)),
    }
    return LearningRows(**{**columns, **more})


def test_the_positive_class_may_be_any() -> None:
    assert Classes(2, 0).truth(np.array([0, 1])).tolist() == [1, 0]
    assert Classes(2, 1).truth(np.array([0, 1])).tolist() == [0, 1]
    assert Classes(3, 0).truth(np.array([0, 2])).tolist() == [0, 2]
    assert Classes(2, 1).ignorant(2).tolist() == [0.5, 0.5]
    assert Classes(4, 0).ignorant(1).tolist() == [[0.25] * 4]


def test_slices_are_bits_and_null_is_in_none() -> None:
    matrix = np.array([[0.0, 1.0], [2.0, 1.0], [np.nan, 1.0]])
    slices = [Slice(name="high", expression="a > 1"), Slice(name="one", expression="b == 1")]
    assert slice_bits(slices, ("a", "b"), matrix).tolist() == [2, 3, 2]
    assert slice_bits([Slice(name="raw", expression="a")], ("a", "b"), matrix).tolist() == [0, 1, 0]


def test_sources_that_are_too_many_are_the_others() -> None:
    names, index = source_index(("a", "b", "c"), np.array([2, 0, 2]))
    assert (names, index.tolist()) == (("a", "c"), [1, 0, 1])
    many = MAX_SOURCES + 10
    source = np.concatenate([np.arange(many), np.arange(20)])
    names, index = source_index([f"s{i:05}" for i in range(many)], source)
    assert len(names) == MAX_SOURCES
    assert names[-1] == OTHERS
    assert int((index == MAX_SOURCES - 1).sum()) == 11
    assert all(names[i] == "s00003" for i in index[source == 3])
    assert len(source_index(("x" * 500,), np.array([0]))[0][0]) == 200


@pytest.mark.parametrize(
    ("until", "least", "expected", "unseen"),
    [(-1, 30, 100, True), (99, 30, 50, True), (170, 30, 100, False), (150, 10, 24, True)],
)
def test_rows_behind_the_champions_training_where_there_are_enough(
    until: int, least: int, expected: int, unseen: bool
) -> None:
    judged, said = fair_rows(rows_of(100), until, least)
    assert (int(judged.sum()), said) == (expected, unseen)


def test_evidence_holds_the_newest_rows_and_survives_packing() -> None:
    rows = rows_of(MAX_ROWS + 50, ("bank", "shop"))
    rng = np.random.default_rng(1)
    bout = Bout(rows, rng.random(len(rows)), rng.random(len(rows)), True)
    evidence = evidence_of(bout, Classes(2, 1), [Slice(name="high", expression="a > 1")], ("a", "b"))
    again = unpack(pack(evidence))
    assert again.rows == MAX_ROWS
    assert again.sequences[0] == 100
    assert np.array_equal(again.candidate, bout.candidate[50:].astype(np.float32))
    parts = by_part(again)
    assert set(parts) == {"all", "slice:high", "source:bank", "source:shop"}
    assert parts["all"]["champion"]["rows"] == MAX_ROWS
    assert set(parts["all"]["candidate"]) >= {"log_loss", "accuracy", "roc_auc", "average_precision"}


def test_evidence_of_many_classes_fits_into_a_record() -> None:
    rows = rows_of(MAX_ROWS)
    scores = np.full((MAX_ROWS, 64), 1 / 64)
    evidence = evidence_of(Bout(rows, scores, scores, True), Classes(64, 0), [], ("a", "b"))
    assert 1_000 < evidence.rows < MAX_ROWS
    assert len(pack(evidence)) < 3 << 20


def test_a_part_without_rows_has_no_figures() -> None:
    rows = rows_of(40)
    scores = np.full(40, 0.5)
    never = [Slice(name="never", expression="a > 1000")]
    evidence = evidence_of(Bout(rows, scores, scores, True), Classes(2, 1), never, ("a", "b"))
    assert by_part(evidence)["slice:never"]["candidate"] == {"rows": 0.0}


def test_a_reference_is_a_histogram_without_a_range() -> None:
    found = reference_column(np.array([0.0, 1.0, 1.2, 1.3, -4.0, np.nan, np.inf]))
    assert found["zeros"] == 1
    assert found["missing"] == 2
    assert (found["minimum"], found["maximum"]) == (-4.0, 1.3)
    assert sum(found["counts"]) == 4  # type: ignore[arg-type]
    assert sorted(found["buckets"]) == found["buckets"]  # type: ignore[type-var,arg-type]
    assert reference_column(np.zeros(0))["counts"] == []
