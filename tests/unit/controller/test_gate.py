"""What the gate lets through and what not, and that its figures are those of a library that others trust."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics as trusted

from services.controller.core.gate import judge
from services.controller.core.measures import MEASURES, Scored, block_weights, value
from shared.contracts.policies import GatePolicy
from shared.models.evidence import Evidence
from tests.unit.controller.makers import evidence, noisy

METRICS = sorted(MEASURES)


def policy(**changes: Any) -> GatePolicy:
    return GatePolicy.model_validate({"bootstrap": 200, "min_rows": 100, **changes})


def binary(rows: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    return (random.random(rows) < 0.3).astype(np.int64), random.uniform(0.01, 0.99, rows).round(1).clip(
        0.01, 0.99
    )


def of_library(metric: str, labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float64]) -> float:
    if metric == "log_loss":
        return float(trusted.log_loss(labels, scores))
    if metric == "accuracy":
        return float(trusted.accuracy_score(labels, scores >= 0.5))
    score = {"roc_auc": trusted.roc_auc_score, "average_precision": trusted.average_precision_score}[metric]
    return float(score(labels, scores))


@pytest.mark.parametrize("metric", METRICS)
def test_figures_agree_with_the_library(metric: str) -> None:
    labels, scores = binary(300, 4)
    assert value(metric, Scored.of(labels, scores)) == pytest.approx(of_library(metric, labels, scores))


@pytest.mark.parametrize("metric", METRICS)
def test_a_weight_is_a_row_that_stands_there_as_often(metric: str) -> None:
    labels, scores = binary(80, 5)
    weights = block_weights(80, 20, 9)
    found = MEASURES[metric](Scored.of(labels, scores), weights)
    for row, given in zip(weights.astype(np.int64), found, strict=True):
        repeated = Scored.of(np.repeat(labels, row), np.repeat(scores, row))
        assert given == pytest.approx(value(metric, repeated))


@pytest.mark.parametrize("metric", METRICS)
def test_several_classes_are_measured_one_against_the_rest(metric: str) -> None:
    random = np.random.default_rng(3)
    labels = random.integers(0, 3, 200)
    wide = random.dirichlet(np.ones(3), 200)
    found = value(metric, Scored.of(labels, wide))
    if metric == "log_loss":
        assert found == pytest.approx(trusted.log_loss(labels, wide))
    elif metric == "accuracy":
        assert found == pytest.approx(float((wide.argmax(axis=1) == labels).mean()))
    else:
        each = [value(metric, Scored.of((labels == k).astype(np.int64), wide[:, k])) for k in range(3)]
        assert found == pytest.approx(np.mean(each))


def test_every_resample_has_as_many_rows() -> None:
    assert block_weights(101, 30, 1).sum(axis=1).tolist() == [101.0] * 30
    assert (block_weights(50, 5, 7) == block_weights(50, 5, 7)).all()
    assert (block_weights(50, 5, 7) != block_weights(50, 5, 8)).any()


def in_slice(rows: npt.NDArray[np.bool_], **changes: Any) -> Evidence:
    return evidence(slice_names=("night",), slices=rows.astype(np.uint64), **changes)


NIGHT = np.arange(400) < 60


def worse_at_night() -> Evidence:
    made = in_slice(NIGHT)
    candidate = np.where(NIGHT, 0.65 - 0.3 * made.labels, made.candidate).astype(np.float32)
    return replace(made, candidate=candidate)


GATES: dict[str, tuple[Evidence, dict[str, Any], dict[str, Any], str]] = {
    "better": (evidence(), {}, {}, "gate.passed"),
    "equal": (replace(evidence(), candidate=evidence().champion), {}, {}, "gate.margin"),
    "worse": (evidence(0.8, 0.2), {}, {}, "gate.margin"),
    "not better by the margin": (evidence(), {"margin": 0.9}, {}, "gate.margin"),
    "too few rows": (evidence(rows=90), {}, {}, "gate.rows"),
    "one class only": (
        replace(evidence(), labels=np.zeros(400, np.uint8)),
        {"metric": "roc_auc"},
        {},
        "gate.undefined",
    ),
    "worse in a slice": (worse_at_night(), {}, {}, "gate.slice"),
    "worse in a slice that may be": (worse_at_night(), {"slice_tolerance": 9.0}, {}, "gate.passed"),
    "a slice of few rows": (in_slice(np.arange(400) < 9), {}, {}, "gate.passed"),
    "as fast as declared": (evidence(), {"max_row_seconds": 0.01}, {"row_seconds": 0.005}, "gate.passed"),
    "too slow": (evidence(), {"max_row_seconds": 0.01}, {"row_seconds": 0.02}, "gate.latency"),
    "of unknown speed": (evidence(), {"max_row_seconds": 0.01}, {}, "gate.latency"),
    "of absurd speed": (evidence(), {"max_row_seconds": 0.01}, {"row_seconds": 10**400}, "gate.latency"),
    "too large": (evidence(), {"max_bytes": "1MiB"}, {"bytes": 2 << 20}, "gate.size"),
    "small enough": (evidence(), {"max_bytes": "1MiB"}, {"bytes": 1 << 20}, "gate.passed"),
    "two honest sources": (evidence(sources=("a", "b")), {}, {}, "gate.passed"),
}


@pytest.mark.parametrize("case", GATES)
def test_the_gate_decides(case: str) -> None:
    proof, asked, parameters, reason = GATES[case]
    verdict = judge(proof, policy(**asked), "id", parameters)
    assert (verdict.reason, verdict.passed) == (reason, reason == "gate.passed")


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_tells_better_from_worse(metric: str) -> None:
    assert judge(evidence(), policy(metric=metric), "id").passed
    assert judge(evidence(0.8, 0.2), policy(metric=metric), "id").reason == "gate.margin"


def test_the_same_proposal_gets_the_same_figures() -> None:
    first = judge(evidence(), policy(), "id")
    assert judge(evidence(), policy(), "id") == first
    assert judge(evidence(), policy(), "other").figures["low"] != first.figures["low"]


def poisoned(flipped: float, seed: int) -> tuple[Evidence, Evidence]:
    """Evidence in which one source of three lies: of a model that learnt the lies, and of an honest one.

    The liar flips 30 % of all outcomes' labels by flipping 90 % of its own third.
    """
    random = np.random.default_rng(seed)
    rows = 1_500
    truth = (random.random(rows) < 0.4).astype(np.float64)
    sources = (np.arange(rows) % 3).astype(np.uint16)
    lies = (sources == 2) & (random.random(rows) < flipped)
    labels = np.where(lies, 1 - truth, truth)
    champion = noisy(truth, 0.25, seed + 1)
    honest = noisy(truth, 0.5, seed + 2)
    # It can tell the liar's rows apart and says there what the liar says; elsewhere it is a little worse.
    learnt = np.where(sources == 2, noisy(labels, 0.8, seed + 3), noisy(truth, 0.22, seed + 4))
    made = evidence(rows=rows, sources=("a", "b", "liar"))
    common = replace(
        made, labels=labels.astype(np.uint8), sources=sources, champion=champion.astype(np.float32)
    )
    return (
        replace(common, candidate=learnt.astype(np.float32)),
        replace(common, candidate=honest.astype(np.float32)),
    )


@pytest.mark.parametrize("seed", range(10))
def test_a_model_that_learnt_the_lies_of_one_source_is_not_promoted(seed: int) -> None:
    learnt, _ = poisoned(0.9, seed * 100)
    verdict = judge(learnt, policy(), f"poisoned-{seed}")
    assert verdict.figures["low"] > 0, "on all rows the poisoned model looks better"
    assert verdict.reason == "gate.source"


@pytest.mark.parametrize("seed", range(5))
def test_an_honest_better_model_passes_although_a_third_of_one_source_lies(seed: int) -> None:
    _, honest = poisoned(0.3, seed * 100)
    assert judge(honest, policy(), f"honest-{seed}").passed


def test_a_source_is_left_out_only_where_enough_remains() -> None:
    sources = np.zeros(400, np.uint16)
    sources[:50] = 1
    made = replace(evidence(), source_names=("big", "small"), sources=sources)
    assert list(judge(made, policy(), "id").figures["without_source"]) == ["small"]
