"""Several models at once: who answers which row, what shadows add, and what becomes of those that fail."""

import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastavro import parse_schema, schemaless_reader

from services.inference.core.decide import ClassNames, Decisions
from services.inference.core.fold import InferenceFold
from services.inference.core.lineup import ActiveModel, Lineup, Tolerance
from services.inference.core.routing import Router
from services.inference.core.rows import Answering, double_arrays
from services.inference.core.scoring import Scorer
from shared.codec.batch import Batch, Floats, Strings
from shared.codec.program import compile_program
from shared.models.loading import load_model
from shared.models.manifest import Linear
from tests.unit.inference.makers import POISON, WEIRD, feature_batch, loaded, touchy
from tests.unit.models.makers import FINGERPRINT, NAMES, announcement, artefact, samples

DECISIONS = Decisions([("approve", 0.0), ("review", 0.5)])
CONTRACT = json.loads((Path(__file__).parents[3] / "schemas/platform/prediction.avsc").read_text())


def _model(version: int, state: str = "champion", scorer: Scorer | None = None, **more: Any) -> ActiveModel:
    said = announcement(version, state=state, **more)
    return ActiveModel(said, 10 * version, scorer or Scorer(loaded(seed=version)))


def _fold(lineup: Lineup) -> InferenceFold:
    fold = InferenceFold(NAMES, Answering(DECISIONS), "fraud")
    fold.obey(lineup)
    return fold


def _keyed(matrix: Floats, prefix: str = "customer") -> Batch:
    return feature_batch(matrix).having(
        key=Strings.of([f"{prefix}-{i}".encode() for i in range(len(matrix))])
    )


def _texts(rows: Batch, name: str) -> list[str]:
    return [each.decode() for each in rows[name].strings.to_list()]


def test_each_key_has_its_role_and_rows_keep_their_order() -> None:
    champion, canary = _model(1), _model(2, "canary", share=0.3)
    batch = _keyed(matrix := samples(500))
    out = _fold(Lineup(champion, canary)).step(batch).predictions
    mask = Router("fraud").canary(batch["key"].strings, 0.3)
    assert 100 < mask.sum() < 200
    assert out["input_offset"].array.tolist() == list(range(500))
    assert _texts(out, "role") == ["canary" if each else "champion" for each in mask]
    assert out["model_version"].array.tolist() == np.where(mask, 2, 1).tolist()
    assert out["registry_offset"].array.tolist() == np.where(mask, 20, 10).tolist()
    assert _texts(out, "model_digest") == [f"{2 if each else 1:064x}" for each in mask]
    expected = np.where(mask, canary.scorer.score(matrix).scores, champion.scorer.score(matrix).scores)
    np.testing.assert_allclose(out["score"].array, expected, rtol=0, atol=1e-6)
    assert _texts(out, "label") == ["review" if score >= 0.5 else "approve" for score in out["score"].array]


@pytest.mark.parametrize("share", [1e-12, 1.0])
def test_a_canary_of_no_key_or_of_all(share: float) -> None:
    fold = _fold(Lineup(_model(1), _model(2, "canary", share=share)))
    out = fold.step(_keyed(samples(20))).predictions
    assert set(_texts(out, "role")) == {"canary" if share == 1.0 else "champion"}
    assert len(fold.step(_keyed(samples(0))).predictions) == 0


def test_shadows_answer_every_row_apart() -> None:
    matrix = samples(50)
    shadows = (_model(3, "shadow"), _model(4, "shadow"))
    answer = _fold(Lineup(_model(1), _model(2, "canary", share=0.5), shadows)).step(_keyed(matrix))
    main = answer.predictions
    assert main["shadows"].array.tolist() == [2] * 50
    assert [rows["model_version"].array.tolist() for rows in answer.shadows] == [[3] * 50, [4] * 50]
    for rows, model in zip(answer.shadows, shadows, strict=True):
        assert set(rows.columns) == {field["name"] for field in CONTRACT["fields"]}
        assert rows["event_id"].strings.to_list() == main["event_id"].strings.to_list()
        assert set(_texts(rows, "role")) == {"shadow"}
        assert set(rows["registry_offset"].array.tolist()) == {model.registry_offset}
        np.testing.assert_array_equal(rows["score"].array, model.scorer.score(matrix).scores)
    assert set(_texts(main, "role")) == {"champion", "canary"}


@pytest.mark.parametrize("evil", [POISON, WEIRD, -WEIRD])
def test_a_row_that_a_shadow_cannot_score_is_left_out_and_not_counted(evil: float) -> None:
    matrix = samples(20)
    matrix[[4, 9], 0] = evil
    good = _model(3, "shadow")
    answer = _fold(Lineup(_model(1), None, (_model(2, "shadow", touchy()[0]), good))).step(_keyed(matrix))
    assert not answer.bad
    assert len(answer.predictions) == 20
    assert answer.predictions["shadows"].array.tolist() == [1 if i in (4, 9) else 2 for i in range(20)]
    assert [len(rows) for rows in answer.shadows] == [18, 20]
    assert answer.shadows[0]["input_offset"].array.tolist() == [i for i in range(20) if i not in (4, 9)]


def test_no_shadow_answers_what_was_not_answered() -> None:
    matrix = samples(10)
    matrix[3, 0] = POISON
    matrix[7, 1] = np.nan
    answer = _fold(Lineup(_model(1, scorer=touchy()[0]), None, (_model(2, "shadow"),))).step(_keyed(matrix))
    assert [bad.row for bad in answer.bad] == [3, 7]
    assert answer.shadows[0]["input_offset"].array.tolist() == [0, 1, 2, 4, 5, 6, 8, 9]


def test_bad_rows_of_a_canary_are_told_at_their_place() -> None:
    matrix = samples(200)
    batch = _keyed(matrix)
    mask = Router("fraud").canary(batch["key"].strings, 0.5)
    bad = np.flatnonzero(mask)[[3, 8]].tolist()
    matrix[bad, 0] = POISON
    answer = _fold(Lineup(_model(1), _model(2, "canary", touchy()[0], share=0.5))).step(_keyed(matrix))
    assert [each.row for each in answer.bad] == bad
    assert answer.predictions["input_offset"].array.tolist() == [i for i in range(200) if i not in bad]
    assert _texts(answer.predictions, "role") == ["canary" if m else "champion" for m in np.delete(mask, bad)]


def test_a_canary_that_spoils_too_much_gives_its_keys_back() -> None:
    matrix = samples(50)
    matrix[:, 0] = POISON
    champion = _model(1)
    lineup = Lineup(champion, _model(2, "canary", touchy()[0], share=0.9))
    fold = _fold(lineup)
    answer = fold.step(_keyed(matrix))
    assert [(f.role, f.failed.announcement.version, f.instead) for f in answer.failures] == [
        ("canary", 2, None)
    ]
    fold.obey(lineup)  # whoever hands it out again has not heard yet
    after = fold.step(_keyed(matrix))
    assert not after.bad
    assert set(_texts(after.predictions, "role")) == {"champion"}


def test_a_shadow_that_spoils_too_much_is_told_once_and_goes() -> None:
    matrix = samples(50)
    matrix[:, 0] = POISON
    fold = _fold(Lineup(_model(1), None, (_model(2, "shadow", touchy()[0]), _model(3, "shadow"))))
    answer = fold.step(_keyed(matrix))
    assert [(f.role, f.failed.announcement.version) for f in answer.failures] == [("shadow", 2)]
    assert not answer.bad
    after = fold.step(_keyed(matrix))
    assert not after.failures
    assert after.predictions["shadows"].array.tolist() == [1] * 50


def test_a_champion_without_one_before_it_stays_and_is_told_once() -> None:
    matrix = samples(50)
    matrix[:20, 0] = POISON
    fold = _fold(Lineup(_model(1, scorer=touchy()[0])))
    failures = [fold.step(_keyed(matrix)).failures for _ in range(3)]
    assert [[(f.role, f.instead) for f in each] for each in failures] == [[("champion", None)], [], []]


def test_a_model_that_changes_its_role_begins_with_a_clean_record() -> None:
    matrix = samples(100)
    matrix[:8, 0] = POISON
    scorer = touchy()[0]
    fold = _fold(Lineup(_model(1), None, (_model(2, "shadow", scorer),)))
    fold.step(_keyed(matrix))
    promoted = ActiveModel(announcement(2), 30, scorer)
    fold.obey(Lineup(promoted))
    assert not fold.step(_keyed(matrix)).failures


def test_a_model_that_keeps_its_role_keeps_its_record() -> None:
    matrix = samples(100)
    matrix[:8, 0] = POISON
    shadow = _model(2, "shadow", touchy()[0])
    fold = _fold(Lineup(_model(1), None, (shadow,)))
    fold.step(_keyed(matrix))
    fold.obey(Lineup(_model(3), None, (shadow,)))
    assert [f.role for f in fold.step(_keyed(matrix)).failures] == ["shadow"]


def test_the_champion_before_is_let_go_where_memory_is_short() -> None:
    fold = _fold(Lineup(_model(1)))
    fold.obey(Lineup(_model(2)))
    assert fold.previous is not None
    fold.obey(Lineup(_model(2), spare=False))
    assert fold.previous is None


@pytest.mark.parametrize(("row_seconds", "slow"), [(2e-4, False), (4e-4, True)])
def test_a_model_that_takes_ten_times_its_budget_is_taken_out(row_seconds: float, slow: bool) -> None:
    budget = loaded().manifest.budget.row_seconds
    assert 2e-4 < 10 * budget < 4e-4
    now = itertools.count()  # two looks a call: one tick
    fold = InferenceFold(NAMES, Answering(DECISIONS), "fraud", lambda: next(now) * row_seconds * 500)
    fold.obey(Lineup(_model(1)))
    fold.obey(Lineup(_model(2)))
    assert not fold.step(_keyed(samples(500))).failures
    failures = fold.step(_keyed(samples(500))).failures
    assert [(f.reason, f.failed.announcement.version) for f in failures] == [("model.latency", 2)] * slow
    assert fold.lineup.champion is not None
    assert fold.lineup.champion.announcement.version == (1 if slow else 2)


@pytest.mark.parametrize(("most", "slow"), [(1e-3, False), (1e-4, True)])
def test_the_declared_time_a_row_stands_before_the_manifests_budget(most: float, slow: bool) -> None:
    now = itertools.count()
    watch = Tolerance(row_seconds=most)
    fold = InferenceFold(
        NAMES, Answering(DECISIONS), "fraud", lambda: next(now) * 4e-4 * 1_000, tolerance=watch
    )
    fold.obey(Lineup(_model(1)))
    fold.obey(Lineup(_model(2)))
    failures = fold.step(_keyed(samples(1_000))).failures
    assert [(f.reason, f.failed.announcement.version) for f in failures] == [("model.latency", 2)] * slow
    assert all(f"at most {most:.2g} s" in f.detail for f in failures)


def test_single_rows_may_each_cost_a_call() -> None:
    now = itertools.count()
    fold = InferenceFold(NAMES, Answering(DECISIONS), "fraud", lambda: next(now) * 0.0009)
    fold.obey(Lineup(_model(1)))
    fold.obey(Lineup(_model(2)))
    batch = _keyed(samples(1))
    assert not any(fold.step(batch).failures for _ in range(1_200))


def test_of_several_classes_each_has_its_probability() -> None:
    classes = ["low", "mid", "high"]
    model = load_model(artefact(Linear(inputs=3, classes=3)), FINGERPRINT, NAMES, classes=3)
    scorer, matrix = Scorer(model), samples(40)
    fold = InferenceFold(NAMES, Answering(ClassNames(classes)), "fraud")
    fold.obey(Lineup(_model(1, scorer=scorer), _model(2, "canary", scorer, share=0.5)))
    out = fold.step(_keyed(matrix)).predictions
    expected = scorer.score(matrix)
    assert expected.probabilities is not None
    np.testing.assert_allclose(out["score"].array, expected.probabilities.max(axis=1), atol=1e-6)
    assert _texts(out, "label") == [classes[i] for i in out["predicted_class"].array]
    values = compile_program(CONTRACT).encode(out).to_list()
    read: list[Any] = [schemaless_reader(io.BytesIO(v), parse_schema(CONTRACT), None) for v in values]
    np.testing.assert_allclose([each["probabilities"] for each in read], expected.probabilities, atol=1e-6)
    assert [each["predicted_class"] for each in read] == expected.probabilities.argmax(axis=1).tolist()


@pytest.mark.parametrize("positive", [0, 1])
def test_of_two_classes_the_predicted_one_is_an_index_into_the_declared(positive: int) -> None:
    fold = _fold(Lineup(_model(1, scorer=Scorer(loaded(), positive))))
    out = fold.step(_keyed(samples(50))).predictions
    expected = np.where(out["score"].array >= 0.5, positive, 1 - positive)
    assert out["predicted_class"].array.tolist() == expected.tolist()
    assert set(out["probabilities"].strings.to_list()) == {b"\0"}


def test_without_a_label_no_class_is_predicted() -> None:
    fold = InferenceFold(NAMES, Answering(DECISIONS, labelled=False), "fraud")
    fold.activate(_model(1))
    assert set(fold.step(_keyed(samples(5))).predictions["predicted_class"].array.tolist()) == {-1}


@pytest.mark.parametrize("width", [1, 12, 63, 64, 1024])
def test_arrays_of_doubles_are_avro(width: int) -> None:
    matrix = samples(3, width)
    schema = parse_schema({"type": "array", "items": "double"})
    for row, value in zip(matrix.tolist(), double_arrays(matrix).to_list(), strict=True):
        stream = io.BytesIO(value)
        assert schemaless_reader(stream, schema, None) == row
        assert stream.tell() == len(value)
