import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from river import linear_model, optim, preprocessing

from services.inference.core.scoring import Scorer
from services.retrainer.core.kinds import online
from services.retrainer.core.kinds.online import OnlineLearner
from services.retrainer.core.kinds.rows import TrainingRows, measured
from shared.errors import Refused
from shared.models.building import Features
from shared.models.loading import load_model
from tests.unit.models.makers import FEATURES, FINGERPRINT, NAMES
from tests.unit.retrainer.kinds.makers import rows


def learnt(data: TrainingRows, cuts: tuple[int, ...] = ()) -> OnlineLearner:
    learner = OnlineLearner(FEATURES, data.class_count)
    edges = [0, *cuts, len(data)]
    for begin, end in pairwise(edges):
        learner.learn(data.part(slice(begin, end)))
    return learner


@pytest.mark.parametrize("classes", [2, 3])
def test_cuts_repeats_and_restarts_change_no_bit(classes: int) -> None:
    data = rows(120, classes)
    whole = learnt(data).snapshot()
    assert learnt(data, (1, 2, 70)).snapshot() == whole
    again = learnt(data)
    again.learn(data.part(slice(30, None)))  # seen before
    assert again.snapshot() == whole
    half = learnt(data.part(slice(0, 50))).snapshot()
    restored = OnlineLearner.restore(half, FEATURES, classes)
    assert restored.snapshot() == half
    restored.learn(data)
    assert restored.snapshot() == whole


def test_a_new_learner_can_be_kept_too() -> None:
    empty = OnlineLearner(FEATURES, 2).snapshot()
    assert OnlineLearner.restore(empty, FEATURES, 2).snapshot() == empty


@pytest.mark.parametrize("classes", [2, 3])
def test_what_it_learnt_is_served_as_river_scores(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "RATES", (0.02,))
    data = rows(300, classes)
    regression: Any
    if classes == 2:
        regression = linear_model.LogisticRegression(optimizer=optim.SGD(0.02), intercept_lr=0.02)
    else:
        regression = linear_model.SoftmaxRegression(optimizer=optim.SGD(0.02))
        for each in range(classes):
            _ = regression.weights[each]  # ours knows every class from the first row on
    scaler: Any = preprocessing.StandardScaler()
    for values, target in zip(data.matrix.tolist(), data.classes.tolist(), strict=True):
        x = dict(zip(NAMES, values, strict=True))
        scaler.learn_one(x)
        bias = {} if classes == 2 else {"bias": 1.0}
        regression.learn_one(scaler.transform_one(x) | bias, bool(target) if classes == 2 else target)
    model = load_model(learnt(data).artefact(data.matrix), FINGERPRINT, NAMES, classes=classes)
    scored = Scorer(model).score(data.matrix)
    for row, values in enumerate(data.matrix[:50].tolist()):
        bias = {} if classes == 2 else {"bias": 1.0}
        said = regression.predict_proba_one(
            scaler.transform_one(dict(zip(NAMES, values, strict=True))) | bias
        )
        if scored.probabilities is None:
            assert scored.scores[row] == pytest.approx(said[True], abs=1e-12)
        else:
            assert scored.probabilities[row].tolist() == pytest.approx(
                [said[each] for each in range(classes)], abs=1e-12
            )


@pytest.mark.parametrize("classes", [2, 4])
def test_it_learns_and_a_fresh_class_is_possible(classes: int) -> None:
    data = rows(2_000, classes)
    learner = learnt(data)
    assert measured(data, learner.outputs(data.matrix))["log_loss"] < np.log(classes) - 0.05
    if classes > 2:
        some = replace(data, classes=data.classes % 2)
        outputs = learnt(some.part(slice(0, 200))).outputs(data.matrix)
        assert (outputs[:, 2:] > 0).all()


def test_the_rate_of_the_smallest_late_loss_is_taken() -> None:
    data = rows(400)
    learner = learnt(data)
    kept = json.loads(learner.snapshot())["rates"]
    assert learner.best() == int(np.argmin([each["loss"] for each in kept]))


def test_a_state_of_other_features_or_classes_is_refused() -> None:
    state = learnt(rows(20)).snapshot()
    for features, classes in ((Features(NAMES, "cd" * 32), 2), (FEATURES, 3)):
        with pytest.raises(Refused, match="begin anew"):
            OnlineLearner.restore(state, features, classes)
    changed = json.loads(state) | {"format": "other"}
    with pytest.raises(Refused, match="begin anew"):
        OnlineLearner.restore(json.dumps(changed).encode(), FEATURES, 2)
