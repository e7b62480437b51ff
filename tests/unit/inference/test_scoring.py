import numpy as np
import pytest
import torch

from services.inference.core.scoring import CPU_ROWS, Scorer
from shared.codec.batch import Floats
from tests.unit.inference.makers import POISON, WEIRD, loaded, touchy
from tests.unit.models.makers import samples


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
