import numpy as np
import pytest
from river import linear_model, optim, preprocessing
from river.compose import Pipeline

from services.inference.core.scoring import Scorer
from services.retrainer.core.from_river import from_river
from shared.errors import Refused
from shared.models.loading import load_model
from tests.unit.models.makers import FEATURES, FINGERPRINT, NAMES


def _pipeline() -> Pipeline:
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optimizer=optim.SGD(0.005))


@pytest.mark.parametrize("learned", [0, 1, 2, 500])
def test_scores_equal_rivers(learned: int) -> None:
    rng = np.random.default_rng(learned)
    matrix = rng.normal([1_000.0, 0.0, 5.0], [300.0, 1e-3, 0.0], size=(700, 3))
    labels = rng.random(700) < 0.3 + 0.4 * (matrix[:, 0] > 1_000)
    pipeline = _pipeline()
    rows = [dict(zip(NAMES, row, strict=True)) for row in matrix.tolist()]
    for x, y in zip(rows[:learned], labels[:learned].tolist(), strict=True):
        pipeline.learn_one(x, y)
    expected = np.array([pipeline.predict_proba_one(x)[True] for x in rows])
    made = from_river(pipeline, FEATURES, matrix[:100])
    scorer = Scorer(load_model(made, FINGERPRINT, NAMES))
    np.testing.assert_allclose(scorer.score(matrix).scores, expected, rtol=0, atol=1e-12)
    singly = [scorer.score(matrix[i : i + 1]).scores[0] for i in range(100)]
    np.testing.assert_allclose(singly, expected[:100], rtol=0, atol=1e-12)
    if learned > 2:
        assert np.ptp(expected) > 0.1


def test_a_feature_without_variance_counts_as_zero_whatever_its_weight() -> None:
    regression = linear_model.LogisticRegression(initializer=optim.initializers.Constant(2.0))
    pipeline = preprocessing.StandardScaler() | regression
    rng = np.random.default_rng(1)
    matrix = rng.normal([0.0, 1.0, 5.0], [1.0, 1.0, 0.0], size=(50, 3))
    for row in matrix.tolist():
        pipeline.learn_one(dict(zip(NAMES, row, strict=True)), row[0] > 0)
    odd = np.array([[0.5, 0.5, 6.0]])
    expected = pipeline.predict_proba_one(dict(zip(NAMES, odd[0].tolist(), strict=True)))[True]
    scorer = Scorer(load_model(from_river(pipeline, FEATURES, matrix), FINGERPRINT, NAMES))
    assert scorer.score(odd).scores[0] == pytest.approx(expected, abs=1e-12)


def test_other_pipelines_are_refused() -> None:
    samples = np.zeros((2, 3))
    for other in (
        linear_model.LogisticRegression(),
        preprocessing.MinMaxScaler() | linear_model.LogisticRegression(),
        preprocessing.StandardScaler(with_std=False) | linear_model.LogisticRegression(),
    ):
        with pytest.raises(Refused):
            from_river(other, FEATURES, samples)
