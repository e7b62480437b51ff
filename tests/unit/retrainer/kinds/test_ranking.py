"""Candidates in the order in which they are proposed: by what the judging rows can tell."""

from typing import cast

import numpy as np
import pytest

from services.retrainer.core.kinds.ranking import measure, ranked
from services.retrainer.core.kinds.rows import Candidate, Floats, Ints
from services.retrainer.core.metrics import accuracy, average_precision, figures, roc_auc
from shared.models.manifest import Artefact


def candidate(kind: str, targets: Ints, outputs: Floats) -> Candidate:
    return Candidate(kind, "last", cast(Artefact, None), figures(targets, outputs), outputs, 0)


def world(rows: int, share: float) -> tuple[Ints, Floats, np.random.Generator]:
    """Outcomes, and the chances that they were drawn with."""
    random = np.random.default_rng(5)
    chance = np.clip(random.beta(1, 1 / share - 1, rows), 1e-4, 1 - 1e-4)
    return (random.random(rows) < chance).astype(np.int64), chance, random


@pytest.mark.parametrize("ties", [False, True])
def test_weights_are_how_often_a_row_counts(ties: bool) -> None:
    targets, chance, random = world(300, 0.2)
    outputs = np.round(chance, 1) if ties else chance
    picks = random.integers(0, 300, 300)
    weights = np.bincount(picks, minlength=300).astype(np.float64)
    truth = targets[picks] == 1
    plain = {
        "roc_auc": roc_auc(truth, outputs[picks]),
        "average_precision": average_precision(truth, outputs[picks]),
        "accuracy": accuracy(targets[picks], outputs[picks]),
    }
    for metric, value in plain.items():
        assert measure(metric, targets, outputs)(weights) == pytest.approx(value, abs=1e-12)


def test_where_few_positives_rank_by_chance_log_loss_decides() -> None:
    targets, chance, _ = world(8_000, 0.01)
    good = candidate("good", targets, chance)
    # Ranks about as well, and says everything ten times too often: luck may lift it above the other.
    lucky = chance.copy()
    lucky[np.flatnonzero(targets == 1)[:2]] = 1.0
    other = candidate("lucky", targets, np.clip(lucky * 10, 1e-4, 0.999))
    assert other.figures["average_precision"] > good.figures["average_precision"]
    order = ranked([other, good], targets, "average_precision", 0)
    assert [each.kind for each in order] == ["good", "lucky"]
    assert order == ranked([good, other], targets, "average_precision", 0)


@pytest.mark.parametrize("metric", ["average_precision", "roc_auc", "accuracy"])
def test_what_is_surely_better_by_the_metric_stands_first_whatever_its_log_loss(metric: str) -> None:
    targets, chance, _ = world(4_000, 0.3)
    sharp = np.where(np.abs(chance - 0.5) < 0.45, np.where(targets == 1, 0.97, 0.03), chance)
    sharp[:100] = np.where(targets[:100] == 1, 1e-15, 1 - 1e-15)  # dearly wrong on a few
    better, calm = candidate("better", targets, sharp), candidate("calm", targets, np.full(4_000, 0.3))
    assert better.figures["log_loss"] > calm.figures["log_loss"]
    order = ranked([calm, better], targets, metric, 0)
    assert [each.kind for each in order] == ["better", "calm"]


def test_log_loss_is_its_own_judge() -> None:
    targets, chance, _ = world(500, 0.3)
    found = [candidate("dull", targets, np.full(500, 0.3)), candidate("good", targets, chance)]
    assert [each.kind for each in ranked(found, targets, "log_loss", 0)] == ["good", "dull"]


def test_without_both_classes_the_order_of_the_kinds_stands() -> None:
    targets = np.zeros(60, np.int64)
    found = [candidate(name, targets, np.full(60, p)) for name, p in (("first", 0.4), ("second", 0.1))]
    assert [each.kind for each in ranked(found, targets, "roc_auc", 0)] == ["first", "second"]
