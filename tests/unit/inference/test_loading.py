import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.inference import loading
from services.inference.core.fold import ActiveModel
from services.inference.core.registry import Action
from services.inference.loading import LoadPolicy, ModelLoader, Refusal, Want
from shared.models.manifest import Artefact
from shared.store.artefacts import ArtefactStore
from tests.unit.models.makers import NAMES, announcement, artefact, samples, with_weights


@pytest.fixture(autouse=True)
def _no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial process has its own tests, and takes seconds."""
    monkeypatch.setattr(loading, "probe", lambda *_: None)


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(str(tmp_path))


@pytest.fixture
def loader(store: ArtefactStore) -> Iterator[ModelLoader]:
    made = ModelLoader(store, LoadPolicy(patience_s=0.3, poll_s=0.02), Want(NAMES, lambda: samples(4)))
    yield made
    made.close()


def _load(of: Artefact, version: int = 1) -> Action:
    return Action("load", 10 + version, announcement(version, digest=of.digest))


def _outcome(loader: ModelLoader) -> ActiveModel | Refusal:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        outcome = loader.take()
        if outcome is not None:
            return outcome
        time.sleep(0.01)
    pytest.fail("the loader gave no outcome")


def test_an_announced_artefact_becomes_a_model(store: ArtefactStore, loader: ModelLoader) -> None:
    made = artefact()
    store.put(made)
    loader.submit(_load(made))
    outcome = _outcome(loader)
    assert isinstance(outcome, ActiveModel)
    assert (outcome.registry_offset, outcome.scorer.model.digest) == (11, made.digest)
    assert loader.take() is None


def test_an_artefact_that_comes_later_is_waited_for(store: ArtefactStore, loader: ModelLoader) -> None:
    made = artefact()
    loader.submit(_load(made))
    timer = threading.Timer(0.1, store.put, (made,))
    timer.start()
    assert isinstance(_outcome(loader), ActiveModel)
    timer.join()


def test_waiting_is_bounded(loader: ModelLoader) -> None:
    loader.submit(_load(artefact()))
    outcome = _outcome(loader)
    assert isinstance(outcome, Refusal)
    assert outcome.reason == "artefact.missing"


def test_a_newer_announcement_ends_the_wait(store: ArtefactStore) -> None:
    patient = ModelLoader(store, LoadPolicy(patience_s=60), Want(NAMES, lambda: samples(0)))
    newer = artefact(seed=9)
    store.put(newer)
    patient.submit(_load(artefact()))
    time.sleep(0.1)
    patient.submit(_load(newer, 2))
    first, second = _outcome(patient), _outcome(patient)
    patient.close()
    assert isinstance(first, Refusal)
    assert isinstance(second, ActiveModel)


def test_what_is_wrong_with_an_artefact_is_said(store: ArtefactStore, loader: ModelLoader) -> None:
    made = artefact()
    bias = {"layers__2__bias": samples(1, 1)[0].astype("float32") + 9}
    forged = with_weights(made, **bias)
    store.put(forged)
    loader.submit(_load(forged))
    outcome = _outcome(loader)
    assert isinstance(outcome, Refusal)
    assert outcome.reason == "golden.mismatch"


def test_an_error_of_the_worker_itself_is_raised_in_the_loop(store: ArtefactStore) -> None:
    def broken() -> None:
        raise KeyError("recent")

    loader = ModelLoader(store, LoadPolicy(), replace(Want(NAMES, lambda: samples(0)), recent=broken))  # type: ignore[arg-type]
    made = artefact()
    store.put(made)
    loader.submit(_load(made))
    with pytest.raises(KeyError, match="recent"):
        _outcome(loader)
    loader.close()
