from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from services.inference.core.scoring import Scorer
from services.retrainer.core.kinds.choose import candidates, tail_of, tail_rows
from services.retrainer.core.kinds.online import OnlineLearner
from services.retrainer.core.kinds.rows import Candidate, TrainingRows
from services.retrainer.core.kinds.windows import window
from shared.errors import Refused
from shared.models.loading import load_model
from shared.models.manifest import Linear, Mlp
from tests.unit.models.makers import FEATURES, FINGERPRINT, NAMES
from tests.unit.retrainer.kinds.makers import rows

TERMS: dict[str, Any] = {
    "kinds": ("torch", "gbt", "online"),
    "windows": ("last", "since_drift", "weighted"),
    "window_rows": 400,
    "validation": 0.2,
    "drift_since": None,
    "architecture": Mlp(inputs=3, hidden=(8,)),
    "seed": 1,
}


def tried(data: TrainingRows, **changes: Any) -> list[Candidate]:
    return candidates(data, **{**TERMS, **changes})


def turned(count: int = 900, at: int = 500) -> TrainingRows:
    """From row `at` on the outcome is the contrary."""
    data = rows(count)
    return replace(data, classes=np.where(np.arange(count) < at, data.classes, 1 - data.classes))


@pytest.mark.parametrize("classes", [2, 3])
def test_every_kind_on_every_window_the_best_first(classes: int) -> None:
    data = rows(900, classes)
    found = tried(data, drift_since=int(data.sequences[600]), window_rows=500)
    names = {(each.kind, each.window) for each in found}
    both = {
        (kind, name) for kind in ("torch", "linear", "gbt") for name in ("last", "since_drift", "weighted")
    }
    assert names == both | {("online", "all")}
    losses = [each.figures["log_loss"] for each in found]
    assert losses == sorted(losses)
    assert losses[0] < np.log(classes) - 0.2
    for each in found:
        assert each.artefact.manifest.metrics == each.figures
        assert each.artefact.manifest.created_from["kind"] == each.kind


def test_the_tail_judges_and_no_candidate_has_seen_it() -> None:
    data = rows(500)
    tail = tail_rows(500, 400, 0.2)
    flipped = data.classes.copy()
    flipped[-tail:] = 1 - flipped[-tail:]
    honest = {(each.kind, each.window): each for each in tried(data)}
    upside_down = tried(replace(data, classes=flipped))
    for each in upside_down:
        twin = honest[each.kind, each.window]
        assert each.artefact.files == twin.artefact.files
        assert each.figures["accuracy"] == pytest.approx(1 - twin.figures["accuracy"])
        assert each.validation_from == data.sequences[500 - tail]
        assert int(str(each.artefact.manifest.dataset["last_sequence"])) < each.validation_from


def test_outputs_on_the_tail_are_what_a_worker_gives() -> None:
    data = rows(300)
    tail = data.matrix[-tail_rows(300, 400, 0.2) :]
    for each in tried(data):
        scored = Scorer(load_model(each.artefact, FINGERPRINT, NAMES)).score(np.ascontiguousarray(tail))
        np.testing.assert_allclose(scored.scores, each.outputs, rtol=0, atol=1e-6)


def test_after_a_turn_the_rows_since_it_teach_best() -> None:
    data = turned()
    found = tried(data, kinds=("gbt",), window_rows=900, drift_since=int(data.sequences[500]), validation=0.1)
    assert found[0].window == "since_drift"
    assert {each.window: each.figures["accuracy"] for each in found}["last"] < found[0].figures["accuracy"]


def test_windows_hold_what_their_policy_says() -> None:
    data = rows(300)
    last = window("last", data, 100, None)
    assert last is not None
    assert last.sequences.tolist() == data.sequences[200:].tolist()
    since = window("since_drift", data, 250, int(data.sequences[120]) - 1)
    assert since is not None
    assert since.sequences.tolist() == data.sequences[120:].tolist()
    weighted = window("weighted", data, 300, None)
    assert weighted is not None
    assert weighted.weights is not None
    assert weighted.weights[-1] == 1.0
    assert weighted.weights[-31] == pytest.approx(0.5)
    own = window("weighted", replace(data, weights=np.full(300, 3.0)), 300, None)
    assert own is not None
    assert own.weights is not None
    np.testing.assert_allclose(own.weights, 3 * weighted.weights)


@pytest.mark.parametrize("since", [None, 0, 10_000])
def test_a_drift_before_all_rows_or_just_now_makes_no_window(since: int | None) -> None:
    assert window("since_drift", rows(300), 300, since) is None


def test_the_online_learner_goes_on_from_where_it_stood() -> None:
    data = rows(400)
    permanent = OnlineLearner(FEATURES, 2)
    tried(data.part(slice(0, 200)), kinds=("online",), online=permanent)
    assert permanent.sequence == data.sequences[159]
    (later,) = tried(data, kinds=("online",), online=permanent)
    (anew,) = tried(data, kinds=("online",))
    assert later.artefact.digest == anew.artefact.digest
    with pytest.raises(ValueError, match="validation tail"):
        tried(data.part(slice(0, 300)), kinds=("online",), online=permanent)


def test_the_same_rows_give_the_same_artefacts() -> None:
    data = rows(300)
    assert [each.artefact.digest for each in tried(data)] == [each.artefact.digest for each in tried(data)]


def test_rows_that_cannot_teach_are_refused_with_a_next_step() -> None:
    data = rows(300)
    spoilt = data.matrix.copy()
    spoilt[7, 1] = np.nan
    cases = {
        "at least": data.part(slice(0, 20)),
        "one class": replace(data, classes=np.zeros(300, np.int64)),
        "NaN": replace(data, matrix=spoilt),
    }
    for message, bad in cases.items():
        with pytest.raises(Refused, match=message):
            tried(bad, kinds=("torch", "gbt"))
    with pytest.raises(ValueError, match="ascend"):
        tried(replace(data, sequences=data.sequences[::-1].copy()))
    with pytest.raises(ValueError, match="outside"):
        tried(replace(data, classes=data.classes + 1))


@pytest.mark.parametrize(
    ("count", "rare", "expected"),
    [
        (300, 0.5, 60),  # few rows: the share
        (10_000, 0.5, 500),  # many: as many as it takes
        (10_000, 0.1, 1_000),  # a rare class: until there are enough of it
        (10_000, 0.01, 2_000),  # a very rare one: the share again
    ],
)
def test_no_more_rows_judge_than_it_takes(count: int, rare: float, expected: int) -> None:
    data = rows(10)
    index = np.arange(count, dtype=np.int64)
    many = replace(
        data,
        matrix=np.zeros((count, 3)),
        classes=(index % round(1 / rare) == 0).astype(np.int64),
        sequences=index,
        event_times=index,
    )
    assert tail_of(many, 10_000, 0.2) == expected


@pytest.mark.parametrize(("since", "expected"), [(250, 100), (450, 150), (150, 180), (900, 180)])
def test_behind_a_drift_most_rows_teach(since: int, expected: int) -> None:
    data = rows(900)
    assert tail_of(data, 10_000, 0.2, int(data.sequences[900 - since])) == expected


def test_soon_after_a_drift_a_model_of_the_rows_since_is_the_best() -> None:
    data = turned(900, 600)
    since = int(data.sequences[600])
    found = tried(data, window_rows=900, drift_since=since)
    assert found[0].window == "since_drift"
    assert found[0].figures["accuracy"] > 0.8


def test_another_metric_can_choose() -> None:
    found = tried(rows(500), metric="accuracy")
    shares = [each.figures["accuracy"] for each in found]
    assert shares == sorted(shares, reverse=True)


def test_a_linear_declaration_is_trained_by_torch_too() -> None:
    kinds = {each.kind for each in tried(rows(200), architecture=Linear(inputs=3))}
    assert kinds == {"torch", "linear", "gbt", "online"}
