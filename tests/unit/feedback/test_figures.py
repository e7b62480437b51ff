"""Figures against the libraries that define them."""

from typing import Any

import numpy as np
import pytest
from river import metrics
from sklearn.metrics import average_precision_score, f1_score, log_loss, roc_auc_score

from services.feedback.core.figures import Judged, Task, figures
from shared.contracts.policies import Cost

BINARY = Task(2, 1, Cost.model_construct(false_positive=1.0, false_negative=10.0), top_k=20)


def binary(rows: int, seed: int) -> Judged:
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 40, rows) / 40  # with ties
    outcome = (rng.random(rows) < 0.2 + 0.6 * score).astype(np.int64)
    return Judged(outcome, (score >= 0.5).astype(np.int64), score, np.empty((rows, 0)))


@pytest.mark.parametrize(("rows", "seed"), [(1_000, 0), (37, 1), (10, 2)])
def test_binary_figures_are_those_of_scikit_learn_and_river(rows: int, seed: int) -> None:
    found = binary(rows, seed)
    said = figures(BINARY, found, of_day=True)
    expected = {
        "roc_auc": roc_auc_score(found.outcome, found.score),
        "average_precision": average_precision_score(found.outcome, found.score),
        "accuracy": np.mean(found.outcome == found.predicted),
        "f1": f1_score(found.outcome, found.predicted),
    }
    assert {name: said[name] for name in expected} == pytest.approx(expected)
    made: Any = metrics
    river = made.LogLoss()
    for y, p in zip(found.outcome.tolist(), found.score.tolist(), strict=True):
        river.update(bool(y), p)
    assert said["log_loss"] == pytest.approx(river.get(), rel=1e-9)


def test_several_classes() -> None:
    rng = np.random.default_rng(3)
    chances = rng.dirichlet(np.ones(4), 300)
    outcome = rng.integers(0, 4, 300)
    found = Judged(outcome, chances.argmax(1), chances.max(1), chances)
    said = figures(Task(4, 3), found)
    assert set(said) == {"log_loss", "accuracy", "f1", "calibration"}
    assert said["log_loss"] == pytest.approx(log_loss(outcome, chances, labels=[0, 1, 2, 3]))
    assert said["f1"] == pytest.approx(f1_score(outcome, found.predicted, average="macro"))


def test_cost_and_the_top_of_a_day() -> None:
    score = np.array([0.9, 0.8, 0.7, 0.2, 0.1])
    found = Judged(np.array([1, 0, 1, 1, 0]), (score >= 0.5).astype(np.int64), score, np.empty((5, 0)))
    said = figures(Task(2, 1, BINARY.cost, top_k=2), found, of_day=True)
    assert said["cost"] == (1 + 10) / 5
    assert said["precision_at_k"] == 0.5
    assert "precision_at_k" not in figures(Task(2, 1, top_k=2), found)


def test_calibration_is_zero_where_shares_are_as_said_and_one_at_its_worst() -> None:
    half = Judged(np.array([0, 1]), np.array([1, 1]), np.array([0.5, 0.5]), np.empty((2, 0)))
    worst = Judged(np.array([0, 1]), np.array([1, 0]), np.array([1.0, 0.0]), np.empty((2, 0)))
    assert figures(BINARY, half)["calibration"] == 0.0
    assert figures(BINARY, worst)["calibration"] == 1.0


def test_a_window_of_one_class_has_no_auc() -> None:
    score = np.array([0.2, 0.3])
    none = Judged(np.array([0, 0]), np.array([0, 0]), score, np.empty((2, 0)))
    assert not {"roc_auc", "average_precision"} & figures(BINARY, none).keys()
