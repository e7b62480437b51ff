"""Elec2 through Kafka: what is predicted equals an offline river run over the same file, row by row.

`make test ARGS="-k elec2"` runs it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from river import linear_model, optim, preprocessing

from schemas import platform_schema
from services.cli.journey import Journey
from services.cli.script import read_rows, write_script
from services.cli.untrained import announce_artefact
from services.cli.variants import write_variant
from services.retrainer.core.from_river import from_river
from services.stack.endpoints import Endpoints
from shared.contracts.pipeline import Pipeline, find_pipeline
from shared.models.building import Features
from shared.models.manifest import Artefact
from shared.topics import PREDICTIONS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

FILE = Path(__file__).parents[3] / "shared/data/elec2.csv.gz"
ROWS = 45_312
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Offline:
    """A river pipeline that learnt the whole file once, and what it then says of each row."""

    pipeline: Any
    matrix: Floats
    probabilities: Floats


def offline(frame: pl.DataFrame, names: tuple[str, ...]) -> Offline:
    """The logistic regression that the published figures are of, learnt in one pass and then left alone."""
    pipeline = preprocessing.StandardScaler() | linear_model.LogisticRegression(optimizer=optim.SGD(0.005))
    matrix = frame.select(pl.col(names).cast(pl.Float64))
    rows = matrix.to_dicts()
    for row, outcome in zip(rows, frame["class"].to_list(), strict=True):
        pipeline.learn_one(row, outcome == "UP")
    said = np.array([pipeline.predict_proba_one(row)[True] for row in rows])
    return Offline(pipeline, matrix.to_numpy(order="c"), said)


@pytest.mark.skipif(not FILE.is_file(), reason="../shared/data/elec2.csv.gz is not here")
def test_elec2_predictions_equal_rivers(stack: Endpoints, pipeline_name: str, tmp_path: Path) -> None:
    assert stack.bootstrap_servers
    journey = Journey(write_variant(find_pipeline("elec2"), tmp_path, pipeline_name, partitions=4))
    declared = journey.pipeline
    assert declared.label is not None
    frame = read_rows(FILE, declared)
    expected = offline(frame, declared.feature_names)
    announce_artefact(journey, _frozen(expected, declared))
    script = write_script(frame, declared, declared.label.horizon_ms)
    with journey.replaying(script), journey:
        journey.wait_for(journey.topic(PREDICTIONS.name), ROWS)
    ids, scores, labels = _predictions(journey)
    assert sorted(ids.tolist()) == list(range(ROWS)), "each row is answered once"
    assert float(np.abs(scores - expected.probabilities[ids]).max()) <= 1e-9
    assert 0.01 < np.mean(expected.probabilities >= 0.5) < 0.99
    rising = expected.probabilities[ids] >= 0.5
    assert labels == ["rising" if each else "falling" for each in rising.tolist()]


def _frozen(expected: Offline, declared: Pipeline) -> Artefact:
    features = Features(declared.feature_names, declared.feature_fingerprint)
    return from_river(expected.pipeline, features, expected.matrix, {"file": FILE.name, "rows": ROWS})


def _predictions(journey: Journey) -> tuple[npt.NDArray[np.int64], Floats, list[str]]:
    """Row number, score and label of each prediction on the topic."""
    rows = journey.rows(
        journey.topic(PREDICTIONS.name), platform_schema("prediction"), ["event_id", "score", "label"]
    )
    ids = np.array([int(each) for each in rows["event_id"].strings.to_list()], np.int64)
    return ids, rows["score"].array, [each.decode() for each in rows["label"].strings.to_list()]
