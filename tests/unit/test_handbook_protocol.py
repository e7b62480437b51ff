"""The Handbook's protocol as the benchmark takes it: which payments count, and beside whom the loop stands."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from services.retrainer.core.ledger import LearningRows, wanted_rows
from shared.contracts.pipeline import load_pipeline
from tests.bench.bench_handbook_loop import (
    EPOCH,
    TEST,
    TRAIN,
    Week,
    compare,
    declare,
    holds,
    known_cards,
    lines,
)


def week(cards: list[int], days: list[int], fraud: list[bool], score: list[float]) -> Week:
    count = len(cards)
    matrix = np.column_stack([score, np.ones(count)])
    numbers = np.arange(count, dtype=np.int64)
    return Week(
        numbers,
        np.array(cards),
        np.array(days),
        matrix,
        np.array(fraud),
        np.array(score),
        np.full(count, 2, np.int64),
    )


def test_a_card_is_known_a_week_after_its_fraud_and_not_before() -> None:
    told = [(TRAIN[0] - 1, 1, "1"), (TRAIN[0], 2, "1"), (TEST[0] - 7, 3, "1"), (TRAIN[0], 4, "0")]
    frame = pl.DataFrame(
        {
            "TX_TIME_SECONDS": [day * 86_400 + 5 for day, _, _ in told],
            "CUSTOMER_ID": [str(card) for _, card, _ in told],
            "TX_FRAUD": [fraud for _, _, fraud in told],
        }
    )
    cards, days = [1, 2, 3, 3, 4], [TEST[0], TEST[0], TEST[0], TEST[0] + 1, TEST[0]]
    asked = week(cards, days, [False] * 5, [0.0] * 5)
    assert known_cards(frame, asked).tolist() == [False, True, False, True, False]


def test_the_loop_stands_beside_models_of_the_same_rows() -> None:
    random = np.random.default_rng(0)
    fraud = random.random(400) < 0.3
    score = fraud + random.normal(0, 0.5, 400)
    asked = week(list(range(400)), [TEST[0]] * 400, fraud.tolist(), score.tolist())
    numbers = np.arange(400, dtype=np.int64)
    taught = LearningRows(
        numbers,
        numbers.astype(np.uint64),
        fraud.astype(np.int64),
        np.full(400, EPOCH),
        ("",),
        np.zeros(400, np.int64),
        asked.matrix,
    )
    known = np.zeros(400, np.bool_)
    known[:100] = True
    table = compare(taught, asked, known)
    assert [row["all"]["rows"] for row in table] == [400, 400, 400]
    assert [row["not_known"]["rows"] for row in table] == [300, 300, 300]
    loop, logistic, forest = table
    assert logistic["all"]["roc_auc"] == loop["all"]["roc_auc"]
    assert forest["all"]["roc_auc"] > 0.99
    told = {
        "models": table,
        "answered_by": {"2": 400},
        "trained": {"version": 2},
        "labels_as_in_file": True,
    }
    assert holds(told)
    assert not holds(told | {"answered_by": {"1": 1, "2": 399}})
    assert "(1.00x)" in lines(told)[2]


def test_the_declared_window_is_the_training_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    declared = load_pipeline(declare(66_928))
    policy = declared.policy.retrain
    assert policy is not None
    assert wanted_rows(policy.window_rows, policy.validation) == 66_928
    assert policy.on == ("command",)
    assert declared.policy.promotion.shadow_labels == declared.policy.promotion.canary_labels == 0
