from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from services.retrainer.core.metrics import average_precision, log_loss, roc_auc
from services.retrainer.core.train import Dataset, Spec, train
from shared.errors import Refused
from shared.models.loading import load_model
from shared.models.manifest import Linear, Mlp
from shared.store.artefacts import ArtefactStore
from tests.unit.models.makers import FEATURES, FINGERPRINT, NAMES, weights

SPECS = {
    "linear": Spec(Linear(inputs=3), epochs=15),
    "linear64": Spec(Linear(inputs=3), "float64", epochs=15),
    "mlp": Spec(Mlp(inputs=3, hidden=(8, 4)), epochs=15),
}


def _rows(count: int = 3_000, seed: int = 0) -> Dataset:
    """Outcomes that follow the first feature; amounts in thousands, one feature constant."""
    rng = np.random.default_rng(seed)
    matrix = np.column_stack([rng.normal(5_000, 900, count), rng.normal(size=count), np.full(count, 7.0)])
    labels = rng.random(count) < 1 / (1 + np.exp(-(matrix[:, 0] - 5_500) / 300))
    return Dataset(FEATURES, matrix, labels, {"topic": "fraud.features.v1"})


@pytest.mark.parametrize("name", SPECS)
def test_it_learns_and_what_it_made_can_be_served(name: str, tmp_path: Path) -> None:
    made = train(_rows(), SPECS[name], seed=1)
    assert made.manifest.metrics["roc_auc"] > 0.85
    store = ArtefactStore(str(tmp_path))
    loaded = load_model(store.get(store.put(made)), FINGERPRINT, NAMES)
    with torch.inference_mode():
        low, high = loaded.network(torch.tensor([[3_000.0, 0, 7], [8_000.0, 0, 7]], dtype=torch.float64))
    assert low < 0.1 < 0.9 < high


@pytest.mark.parametrize("name", SPECS)
def test_the_same_rows_and_seed_give_the_same_bytes(name: str) -> None:
    torch.manual_seed(11)
    first = train(_rows(), SPECS[name], seed=1)
    torch.manual_seed(22)
    assert train(_rows(), SPECS[name], seed=1).digest == first.digest
    assert train(_rows(), SPECS[name], seed=2).digest != first.digest


def test_training_leaves_torch_as_it_was() -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(5)
    expected = torch.rand(3).tolist()
    torch.manual_seed(5)
    train(_rows(200), SPECS["linear"], seed=1)
    assert torch.rand(3).tolist() == expected
    assert torch.get_num_threads() == threads


def test_the_tail_judges_and_never_teaches() -> None:
    data = _rows()
    spec = replace(SPECS["linear"], epochs=1)
    flipped = data.labels.copy()
    flipped[-600:] = ~flipped[-600:]
    honest = train(data, spec, seed=1)
    upside_down = train(replace(data, labels=flipped), spec, seed=1)
    assert upside_down.files == honest.files
    assert upside_down.manifest.metrics["roc_auc"] < 0.2


def test_the_tail_does_not_scale() -> None:
    data = _rows(200)
    shifted = data.matrix.copy()
    shifted[-40:] += 1e6
    spec = replace(SPECS["linear"], epochs=1)
    before, after = (weights(train(replace(data, matrix=m), spec, seed=1)) for m in (data.matrix, shifted))
    assert before["scaling.mean"].tolist() == after["scaling.mean"].tolist()
    assert before["scaling.scale"].tolist() == after["scaling.scale"].tolist()


def test_it_stops_early_and_keeps_the_best() -> None:
    rng = np.random.default_rng(3)
    noise = Dataset(FEATURES, rng.normal(size=(300, 3)), rng.random(300) < 0.5, {})
    spec = Spec(Mlp(inputs=3, hidden=(64,)), epochs=200, learning_rate=0.05, batch_rows=32)
    made = train(noise, spec, seed=1)
    assert 0 < int(str(made.manifest.created_from["epochs_run"])) < 50
    assert made.manifest.metrics["log_loss"] < 0.75


def test_balance_lifts_rare_scores() -> None:
    data = _rows()
    rare = replace(data, labels=data.labels & (np.arange(len(data.labels)) % 10 == 0))
    plain = train(rare, SPECS["linear"], seed=1)
    weighted = train(rare, replace(SPECS["linear"], balance=True), seed=1)
    row = torch.tensor([[5_500.0, 0.0, 7.0]], dtype=torch.float64)
    scores = [load_model(a, FINGERPRINT, NAMES).network(row).item() for a in (plain, weighted)]
    assert scores[1] > 3 * scores[0]


def test_the_manifest_says_how_it_was_made() -> None:
    manifest = train(_rows(200), SPECS["mlp"], seed=4).manifest
    assert manifest.created_from["seed"] == 4
    assert manifest.created_from["trainer"] == "millrace.torch"
    assert manifest.dataset == {"topic": "fraud.features.v1", "rows": 200, "tail_rows": 40}


def test_rows_that_cannot_teach_are_refused_with_a_next_step() -> None:
    data = _rows(200)
    nan = data.matrix.copy()
    nan[3, 0] = np.nan
    cases = {
        "at least": Dataset(FEATURES, data.matrix[:10], data.labels[:10], {}),
        "one class": replace(data, labels=np.zeros(200, np.bool_)),
        "NaN": replace(data, matrix=nan),
    }
    for message, bad in cases.items():
        with pytest.raises(Refused, match=message):
            train(bad, SPECS["linear"], seed=1)


LABELLED = st.lists(st.tuples(st.booleans(), st.integers(0, 10)), min_size=2, max_size=60)


@settings(deadline=None)
@given(LABELLED)
def test_figures_equal_scikit_learns(rows: list[tuple[bool, int]]) -> None:
    labels = np.array([label for label, _ in rows])
    scores = np.array([score / 10 for _, score in rows])
    if labels.any() and not labels.all():
        assert roc_auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores))
    assert np.isfinite(log_loss(labels, scores))


def test_figures_of_one_class_are_errors_and_no_nan() -> None:
    same, scores = np.zeros(3, np.bool_), np.array([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="both classes"):
        roc_auc(same, scores)
    with pytest.raises(ValueError, match="positive"):
        average_precision(same, scores)
