"""Laws of every kind: it learns, is served as it was judged, repeats itself, and minds weights and classes."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from services.inference.core.scoring import Scorer
from services.retrainer.core.kinds.boosted import fit_trees
from services.retrainer.core.kinds.networks import device_of, fit_linear, fit_network
from services.retrainer.core.kinds.rows import Fitted, Floats, Plan, TrainingRows, measured
from shared.errors import Refused
from shared.models.building import Provenance, golden_rows
from shared.models.loading import load_model
from shared.models.manifest import Artefact, Mlp
from tests.unit.models.makers import FEATURES, FINGERPRINT, NAMES
from tests.unit.retrainer.kinds.makers import rows

PLAN = Plan(Mlp(inputs=3, hidden=(16,)), seed=1)
KINDS: dict[str, Callable[[TrainingRows, Plan], Fitted]] = {
    "torch": fit_network,
    "linear": fit_linear,
    "gbt": fit_trees,
}


def frozen(fitted: Fitted, on: TrainingRows) -> Artefact:
    return fitted.artefact(FEATURES, golden_rows(on.matrix), Provenance({}, {}, fitted.describe()))


def served(artefact: Artefact, matrix: Floats, classes: int) -> Floats:
    scored = Scorer(load_model(artefact, FINGERPRINT, NAMES, classes=classes)).score(matrix)
    assert not scored.bad.any()
    return scored.scores if scored.probabilities is None else scored.probabilities


@pytest.mark.parametrize("classes", [2, 3, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_is_served_as_it_was_judged(kind: str, classes: int) -> None:
    fitted = KINDS[kind](rows(1_500, classes), PLAN)
    fresh = rows(400, classes, seed=9)
    outputs = fitted.outputs(fresh.matrix)
    chance = np.log(classes)
    assert measured(fresh, outputs)["log_loss"] < chance - 0.1
    again = served(frozen(fitted, fresh), fresh.matrix, classes)
    np.testing.assert_allclose(again, outputs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_rows_and_seed_give_the_same_bytes(kind: str, classes: int) -> None:
    data = rows(400, classes)
    first, second = (frozen(KINDS[kind](data, PLAN), data) for _ in range(2))
    assert first.digest == second.digest


@pytest.mark.parametrize("kind", KINDS)
def test_heavier_positives_lift_every_score(kind: str) -> None:
    data = rows(600)
    lifted = np.where(data.classes == 1, 10.0, 1.0)
    plain = KINDS[kind](data, PLAN).outputs(data.matrix).mean()
    weighted = KINDS[kind](replace(data, weights=lifted), PLAN).outputs(data.matrix).mean()
    assert weighted > plain + 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_is_of_the_positive_class_wherever_it_stands(kind: str) -> None:
    data = rows(600)
    swapped = replace(data, classes=1 - data.classes, positive=0)
    one, other = (KINDS[kind](each, PLAN).outputs(data.matrix) for each in (data, swapped))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("seen", [(0, 2), (1, 3), (1, 2, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_classes_that_never_came_are_possible_and_unlikely(kind: str, seen: tuple[int, ...]) -> None:
    data = rows(800, len(seen))
    sparse = replace(data, classes=np.array(seen)[data.classes], class_count=5)
    fitted = KINDS[kind](sparse, PLAN)
    outputs = served(frozen(fitted, sparse), sparse.matrix, 5)
    rare = outputs[:, np.setdiff1d(np.arange(5), seen)]
    assert (rare > 0).all()
    assert rare.mean() < 0.05
    assert measured(sparse, outputs)["accuracy"] > 1 / len(seen) + 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_one_class_teaches_nothing(kind: str) -> None:
    data = rows(100)
    with pytest.raises(Refused, match="one class"):
        KINDS[kind](replace(data, classes=np.ones_like(data.classes)), PLAN)


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_that_only_the_newest_rows_show_is_learnt(kind: str) -> None:
    data = rows(400, 3)
    order = np.argsort(data.classes, kind="stable")
    late = replace(data, matrix=data.matrix[order], classes=data.classes[order])
    assert measured(late, KINDS[kind](late, PLAN).outputs(late.matrix))["accuracy"] > 0.4


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_feature_and_large_numbers_do_no_harm(kind: str) -> None:
    data = rows(400)
    odd = data.matrix.copy()
    odd[:, 2] = 0.1
    odd[:, 0] *= 1e12
    outputs = KINDS[kind](replace(data, matrix=odd), PLAN).outputs(odd)
    assert np.isfinite(outputs).all()
    assert measured(data, outputs)["log_loss"] < 0.6


def test_categories_are_embedded_and_codes_unseen_are_served() -> None:
    random = np.random.default_rng(3)
    data = rows(1_000)
    codes = random.integers(0, 6, 1_000)
    matrix = data.matrix.copy()
    matrix[:, 2] = codes
    truth = np.isin(codes, (1, 4)).astype(np.int64)  # no line through the codes parts them
    coded = replace(data, matrix=matrix, classes=truth, categorical={2: 6})
    fitted = fit_network(coded, PLAN)
    assert measured(coded, fitted.outputs(matrix))["accuracy"] > 0.95
    matrix[:, 2] = 77
    assert np.isfinite(served(frozen(fitted, coded), matrix, 2)).all()


def test_a_device_is_found_or_refused() -> None:
    assert device_of("cpu") == "cpu"
    there = torch.cuda.is_available()
    assert device_of("auto") == ("cuda" if there else "cpu")
    if not there:
        with pytest.raises(Refused, match="MILLRACE_RETRAINER__DEVICE=auto"):
            device_of("cuda")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [2, 3])
def test_balance_lifts_what_is_rare(kind: str, classes: int) -> None:
    data = rows(1_200, classes)
    kept = np.flatnonzero((data.classes != 1) | (np.arange(1_200) % 8 == 0))
    index = np.arange(len(kept))
    rare = replace(
        data,
        matrix=data.matrix[kept],
        classes=data.classes[kept],
        event_times=index * 1_000,
        sequences=index,
    )
    plain, weighed = (KINDS[kind](rare, replace(PLAN, balance=b)).outputs(rare.matrix) for b in (False, True))
    of_rare = (plain, weighed) if classes == 2 else (plain[:, 1], weighed[:, 1])
    assert of_rare[1].mean() > 1.5 * of_rare[0].mean()
