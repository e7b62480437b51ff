import numpy as np
import pytest
import torch

from services.inference.core.scoring import CPU_ROWS, Scored, Scorer
from shared.codec.batch import Floats
from shared.models.architectures import Network
from shared.models.loading import LoadedModel, load_model
from shared.models.manifest import Linear
from tests.unit.inference.makers import POISON, WEIRD, loaded, touchy
from tests.unit.models.makers import FINGERPRINT, NAMES, artefact, samples, trees


def _expected(matrix: Floats) -> Floats:
    with torch.inference_mode():
        scores: Floats = loaded().network(torch.from_numpy(matrix)).numpy()
    return scores


@pytest.mark.parametrize("rows", [0, 1, 2, CPU_ROWS, CPU_ROWS + 1, 3 * CPU_ROWS])
def test_scores_are_the_networks(rows: int) -> None:
    matrix = samples(rows)
    scored = Scorer(loaded()).score(matrix)
    assert not scored.bad.any()
    assert scored.scores.dtype == np.float64
    np.testing.assert_allclose(scored.scores, _expected(matrix), rtol=0, atol=1e-6)


def test_large_batches_reach_the_network_in_parts() -> None:
    scorer, calls = touchy()
    scorer.score(samples(2 * CPU_ROWS + 5))
    assert calls == [CPU_ROWS, CPU_ROWS, 5]


@pytest.mark.parametrize("where", [[0], [41], [99], [0, 1, 50, 99], list(range(100))])
def test_rows_that_make_the_model_fail_stand_alone(where: list[int]) -> None:
    scorer, _ = touchy()
    matrix = samples(100)
    good = _expected(matrix)
    matrix[where, 1] = POISON
    scored = scorer.score(matrix)
    assert np.flatnonzero(scored.bad).tolist() == where
    assert [(bad.row, bad.reason) for bad in scored.rows] == [(row, "model.failed") for row in where]
    assert "cannot digest this" in scored.rows[0].message
    np.testing.assert_allclose(scored.scores[~scored.bad], good[~scored.bad], rtol=0, atol=1e-6)


def test_one_bad_row_costs_few_more_calls() -> None:
    scorer, calls = touchy()
    matrix = samples(1024)
    matrix[700, 0] = POISON
    scorer.score(matrix)
    assert len(calls) == 1 + 2 * 10


def test_scores_that_are_no_probability_are_bad() -> None:
    scorer, _ = touchy()
    matrix = samples(10)
    matrix[3, 0], matrix[7, 2] = WEIRD, -WEIRD
    scored = scorer.score(matrix)
    assert [(bad.row, bad.reason) for bad in scored.rows] == [(3, "model.nonfinite"), (7, "model.nonfinite")]
    assert "2.0" in scored.rows[1].message
    assert (scored.scores[scored.bad] == 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_vector_with_a_nonfinite_feature_is_named_and_never_reaches_the_model(value: float) -> None:
    scorer, calls = touchy()
    matrix = samples(4)
    matrix[2, 1] = value
    scored = scorer.score(matrix)
    assert [(bad.row, bad.reason) for bad in scored.rows] == [(2, "features.nonfinite")]
    assert "count" in scored.rows[0].message
    assert calls == [3]


@pytest.mark.parametrize("rows", [0, 5])
def test_warm_up_runs_a_batch_and_a_single_row(rows: int) -> None:
    scorer, calls = touchy()
    scorer.warm_up(samples(rows))
    assert calls == [rows or CPU_ROWS, 1]


def test_scoring_holds_torch_to_one_thread() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        Scorer(loaded()).score(samples(1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def _three(seed: int = 7) -> LoadedModel:
    return load_model(artefact(Linear(inputs=3, classes=3), seed=seed), FINGERPRINT, NAMES, classes=3)


@pytest.mark.parametrize("rows", [0, 1, CPU_ROWS + 1])
def test_more_classes_give_a_probability_each_and_the_largest_as_score(rows: int) -> None:
    matrix = samples(rows)
    model = _three()
    scored = Scorer(model).score(matrix)
    assert scored.probabilities is not None
    with torch.inference_mode():
        expected = model.network(torch.from_numpy(matrix)).numpy()
    np.testing.assert_allclose(scored.probabilities, expected, rtol=0, atol=1e-6)
    assert scored.scores.tolist() == scored.probabilities.max(axis=1).tolist()
    assert scored.predicted.tolist() == scored.probabilities.argmax(axis=1).tolist()
    assert scored.predicted.dtype == np.int64


class _Leaky(Network):
    """Probabilities that do not sum to 1 for negative first features."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = super().forward(x)
        return torch.where(x[:, :1] < 0, out * 0.9, out)


def test_probabilities_of_another_sum_are_bad() -> None:
    model = _three()
    model.network.__class__ = _Leaky
    matrix = np.abs(samples(10))
    matrix[4, 0] = -1.0
    scored = Scorer(model).score(matrix)
    assert [(bad.row, bad.reason) for bad in scored.rows] == [(4, "model.nonfinite")]
    assert scored.probabilities is not None
    assert scored.probabilities[4].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("positive", [0, 1])
def test_of_two_classes_the_positive_one_is_predicted_from_a_half_on(positive: int) -> None:
    scored = Scored(np.array([0.0, 0.49, 0.5, 1.0]), np.zeros(4, np.bool_), positive=positive)
    assert (scored.predicted == positive).tolist() == [False, False, True, True]
    assert Scorer(loaded(), positive).score(samples(1)).positive == positive


@pytest.mark.parametrize("classes", [2, 3])
def test_trees_are_scored_as_networks_are(classes: int) -> None:
    model = load_model(trees(classes), FINGERPRINT, NAMES, classes=classes)
    scorer = Scorer(model)
    scorer.warm_up(np.empty((0, 3)))
    matrix = samples(2 * CPU_ROWS + 5)
    whole, single = scorer.score(matrix), [scorer.score(matrix[i : i + 1]) for i in range(20)]
    assert not whole.bad.any()
    assert [each.scores[0] for each in single] == pytest.approx(whole.scores[:20].tolist(), abs=1e-14)
