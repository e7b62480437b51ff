"""Attributions: complete, of the sampled events only, exact for a linear model, never in an answer's way."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastavro import parse_schema, schemaless_reader

from services.inference.core.decide import ClassNames, Decisions
from services.inference.core.explaining import Explainer
from services.inference.core.fold import Answer, InferenceFold
from services.inference.core.lineup import ActiveModel, Lineup
from services.inference.core.rows import Answering
from services.inference.core.scoring import Scorer
from shared.codec.batch import Batch
from shared.codec.program import compile_program
from shared.models.architectures import Network
from shared.models.loading import LoadedModel, load_model
from shared.models.manifest import Linear, Mlp
from tests.unit.inference.makers import feature_batch, loaded
from tests.unit.models.makers import (
    FINGERPRINT,
    NAMES,
    announcement,
    artefact,
    samples,
)

DECISIONS = Decisions([("approve", 0.0), ("review", 0.5)])
SCHEMA = json.loads((Path(__file__).parents[3] / "schemas/platform/attribution.avsc").read_text())


def answered(
    matrix: Any, share: float, model: LoadedModel | None = None, answering: Answering | None = None
) -> Answer:
    fold = InferenceFold(NAMES, answering or Answering(DECISIONS), "fraud", explainer=Explainer(share, NAMES))
    fold.activate(ActiveModel(announcement(3), 17, Scorer(model or loaded())))
    return fold.step(feature_batch(matrix))


def records(batch: Batch) -> list[dict[str, Any]]:
    """As a stranger reads them."""
    written = compile_program(SCHEMA).encode(batch, b"").to_list()
    schema = parse_schema(SCHEMA)
    return [schemaless_reader(io.BytesIO(value), schema, None) for value in written]  # type: ignore[misc]


def test_values_add_up_to_the_score_from_the_baseline() -> None:
    answer = answered(samples(50), 1.0)
    (rows,) = answer.attributions
    found = records(rows)
    assert len(found) == 50
    assert answer.unexplained == 0
    for told, score in zip(found, answer.predictions["score"].array.tolist(), strict=True):
        assert told["features"] == list(NAMES)
        assert told["score"] == score
        assert told["gap"] == pytest.approx(sum(told["values"]) - (score - told["baseline_score"]), abs=1e-6)
        assert abs(told["gap"]) < 0.02
        assert (told["model_version"], told["registry_offset"], told["role"]) == (3, 17, "champion")
    assert max(abs(value) for told in found for value in told["values"]) > 0.01


def test_a_feature_that_the_model_ignores_added_nothing() -> None:
    model = load_model(artefact(Linear(inputs=3)), FINGERPRINT, NAMES)
    with torch.no_grad():
        assert isinstance(model.network, Network)
        for weight in model.network.parameters():
            if weight.dim() == 2:
                weight.copy_(torch.tensor([[0.0, 1.5, -0.5]]))
    (rows,) = answered(samples(20), 1.0, model).attributions
    values = np.array([told["values"] for told in records(rows)])
    assert (values[:, 0] == 0).all()
    # Of a linear model each feature's part is its weight times its distance from the centre, to one factor a row.
    away = samples(20) - model.centre
    np.testing.assert_allclose(values[:, 1] * -0.5 * away[:, 2], values[:, 2] * 1.5 * away[:, 1], atol=1e-5)


def test_a_share_names_the_same_events_whatever_the_batches() -> None:
    matrix = samples(4_000)
    whole = answered(matrix, 0.1)
    (rows,) = whole.attributions
    assert 320 < rows.rows < 480
    explainer = Explainer(0.1, NAMES)
    model = ActiveModel(announcement(3), 17, Scorer(loaded()))
    parts = []
    for begin in range(0, 4_000, 900):
        part = np.arange(begin, min(begin + 900, 4_000))
        found, _ = explainer.explain([model], whole.predictions.take(part), matrix[part])
        parts += [text for each in found for text in each["event_id"].strings.to_list()]
    assert parts == rows["event_id"].strings.to_list()


def test_of_several_classes_the_predicted_one_is_explained() -> None:
    model = load_model(artefact(Mlp(inputs=3, hidden=(4,), classes=4)), FINGERPRINT, NAMES, classes=4)
    answering = Answering(ClassNames(["a", "b", "c", "d"]))
    answer = answered(samples(30), 1.0, model, answering)
    (rows,) = answer.attributions
    for told in records(rows):
        assert abs(told["gap"]) < 0.05


def test_what_fails_to_explain_leaves_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = Explainer(1.0, NAMES)

    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no gradient")

    monkeypatch.setattr(explainer, "_integrated", fails)
    fold = InferenceFold(NAMES, Answering(DECISIONS), "fraud", explainer=explainer)
    fold.activate(ActiveModel(announcement(3), 17, Scorer(loaded())))
    answer = fold.step(feature_batch(samples(10)))
    assert (answer.predictions.rows, answer.attributions, answer.unexplained) == (10, (), 10)


def test_a_canary_explains_its_own_answers() -> None:
    champion = ActiveModel(announcement(1), 10, Scorer(loaded(1)))
    canary = ActiveModel(announcement(2, state="canary", share=0.5), 20, Scorer(loaded(2)))
    fold = InferenceFold(NAMES, Answering(DECISIONS), "fraud", explainer=Explainer(1.0, NAMES))
    fold.obey(Lineup(champion, canary=canary))
    answer = fold.step(feature_batch(samples(12)))
    roles = {text for rows in answer.attributions for text in rows["role"].strings.to_list()}
    assert roles == set(answer.predictions["role"].strings.to_list())
    assert sum(rows.rows for rows in answer.attributions) == 12
