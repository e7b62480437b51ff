import json
from pathlib import Path

import numpy as np
import pytest

from services.inference.core.decide import Decisions
from services.inference.core.fold import InferenceFold, NoModel
from services.inference.core.lineup import ActiveModel, Tolerance
from services.inference.core.rows import Answering
from services.inference.core.scoring import Scorer
from shared.codec.batch import Strings
from shared.contracts.policies import RollbackPolicy
from tests.unit.inference.makers import POISON, feature_batch, loaded, touchy
from tests.unit.models.makers import NAMES, announcement, samples

DECISIONS = Decisions([("approve", 0.0), ("review", 0.5)])
CONTRACT = json.loads((Path(__file__).parents[3] / "schemas/platform/prediction.avsc").read_text())


def _fold(scorer: Scorer | None = None) -> InferenceFold:
    fold = InferenceFold(NAMES, Answering(DECISIONS), "fraud")
    fold.activate(ActiveModel(announcement(3), 17, scorer or Scorer(loaded())))
    return fold


def test_predictions_have_the_contracts_columns_and_lineage() -> None:
    matrix = samples(5)
    batch = feature_batch(matrix, first_offset=100)
    out = _fold().step(batch).predictions
    assert set(out.columns) == {field["name"] for field in CONTRACT["fields"]}
    assert len(out) == 5
    for name in ("event_id", "key"):
        assert out[name].strings.to_list() == batch[name].strings.to_list()
    for name in ("input_offset", "input_partition", "source_offset", "feature_hash", "event_time", "late"):
        assert out[name].array.tolist() == batch[name].array.tolist()
    assert set(out["model_digest"].strings.to_list()) == {announcement(3).digest.encode()}
    assert out["model_version"].array.tolist() == [3] * 5
    assert out["registry_offset"].array.tolist() == [17] * 5
    scores = Scorer(loaded()).score(matrix).scores
    assert out["score"].array.tolist() == scores.tolist()
    assert out["label"].strings.to_list() == DECISIONS.decide(scores).to_list()


def test_bad_rows_leave_the_good_ones_in_order() -> None:
    matrix = samples(10)
    matrix[4, 0] = POISON
    answer = _fold(touchy()[0]).step(feature_batch(matrix))
    assert [bad.row for bad in answer.bad] == [4]
    assert answer.predictions["input_offset"].array.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_features_are_taken_by_name_whatever_the_order_of_columns() -> None:
    batch = feature_batch(samples(3))
    shuffled = type(batch)({n: batch[n] for n in reversed(list(batch.columns))}, batch.rows)
    first, second = _fold().step(batch), _fold().step(shuffled)
    assert first.predictions["score"].array.tolist() == second.predictions["score"].array.tolist()


def test_without_a_model_the_input_is_held() -> None:
    with pytest.raises(NoModel):
        InferenceFold(NAMES, Answering(DECISIONS), "fraud").step(feature_batch(samples(1)))


def test_recent_vectors_are_those_of_the_newest_batch_that_had_any() -> None:
    fold = _fold()
    assert fold.recent.shape == (0, 3)
    matrix = samples(2000)
    fold.step(feature_batch(matrix))
    fold.step(feature_batch(samples(0)))
    np.testing.assert_array_equal(fold.recent, matrix[-1024:])


def test_an_empty_batch_gives_an_empty_answer() -> None:
    answer = _fold().step(feature_batch(samples(0)))
    assert len(answer.predictions) == 0
    assert isinstance(answer.predictions["label"].values, Strings)


def test_a_swap_holds_from_the_next_batch_on() -> None:
    fold = _fold()
    matrix = samples(4)
    before = fold.step(feature_batch(matrix)).predictions
    fold.activate(ActiveModel(announcement(4), 18, Scorer(loaded(seed=8))))
    after = fold.step(feature_batch(matrix)).predictions
    assert before["model_version"].array.tolist() == [3] * 4
    assert after["model_version"].array.tolist() == [4] * 4
    assert (before["score"].array != after["score"].array).all()


def test_a_model_that_spoils_more_than_a_thousandth_falls_back() -> None:
    fold = _fold()
    good = fold.lineup.champion
    fold.activate(ActiveModel(announcement(4), 18, touchy()[0]))
    matrix = samples(1000)
    matrix[:10, 0] = POISON
    assert not fold.step(feature_batch(matrix)).failures
    answer = fold.step(feature_batch(matrix[:1]))
    assert [(f.role, f.failed.announcement.version, f.instead) for f in answer.failures] == [
        ("champion", 4, good)
    ]
    assert answer.failures[0].detail.startswith("11 of 1001 rows")
    assert fold.lineup.champion is good
    assert not fold.step(feature_batch(matrix)).bad


def test_a_few_bad_rows_in_many_do_not_fall_back() -> None:
    fold = _fold()
    fold.activate(ActiveModel(announcement(4), 18, touchy()[0]))
    matrix = samples(5_000)
    matrix[:5, 0] = POISON
    assert not any(fold.step(feature_batch(matrix)).failures for _ in range(6))


def test_what_is_borne_is_what_is_declared() -> None:
    declared = RollbackPolicy.model_validate({"max_error_rate": 0.02, "max_row_seconds": 0.003})
    assert Tolerance.of(declared) == Tolerance(0.02, 0.003)
    assert Tolerance.of(RollbackPolicy.model_validate({})) == Tolerance.of(None) == Tolerance(0.001, None)


@pytest.mark.parametrize(
    ("error_rate", "bad", "out"), [(1e-4, 5, True), (0.01, 20, False), (0.01, 101, True)]
)
def test_the_declared_share_of_bad_rows_takes_a_model_out(error_rate: float, bad: int, out: bool) -> None:
    fold = InferenceFold(NAMES, Answering(DECISIONS), "fraud", tolerance=Tolerance(error_rate))
    for version, scorer in ((3, Scorer(loaded())), (4, touchy()[0])):
        fold.activate(ActiveModel(announcement(version), 10 + version, scorer))
    matrix = samples(10_000)
    matrix[:bad, 0] = POISON
    failures = fold.step(feature_batch(matrix)).failures
    assert [f.failed.announcement.version for f in failures] == [4] * out


def test_a_long_good_record_does_not_excuse_a_model_that_goes_bad() -> None:
    fold = _fold()
    fold.activate(ActiveModel(announcement(4), 18, touchy()[0]))
    matrix = samples(5_000)
    for _ in range(8):
        fold.step(feature_batch(matrix))
    matrix[:11, 0] = POISON
    assert fold.step(feature_batch(matrix)).failures


def test_vectors_with_nan_are_not_the_models_fault() -> None:
    fold = _fold()
    fold.activate(ActiveModel(announcement(4), 18, Scorer(loaded(seed=8))))
    answer = fold.step(feature_batch(np.full((100, 3), np.nan)))
    assert len(answer.bad) == 100
    assert not answer.failures
