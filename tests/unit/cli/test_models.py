"""`millrace models` on pipelines of two classes and of more."""

from pathlib import Path

import polars as pl
import pytest

from services.cli.from_csv import Wish, files_from
from services.cli.models import spec_of, train_and_announce, verified
from shared.contracts.pipeline import Pipeline, load_pipeline
from shared.errors import Refused
from shared.models.building import Features, untrained
from shared.store.artefacts import ArtefactStore

CLASSES = (2, 3, 12)


def declared(tmp_path: Path, classes: int, architecture: str = "linear", loop: bool = False) -> Path:
    """A pipeline of so many classes; without a loop unless asked for."""
    file, folder = tmp_path / "rows.csv", tmp_path / "some"
    pl.DataFrame({"x": [i % 7 / 2 for i in range(60)], "y": [i % classes for i in range(60)]}).write_csv(file)
    folder.mkdir()
    for name, text in files_from(Wish("some", file, "y")).items():
        hidden = f'architecture = "{architecture}"' + ("\nhidden = [4]" if architecture == "mlp" else "")
        text = text.replace('architecture = "linear"', hidden)
        (folder / name).write_text(text if loop else text.replace("[policy.retrain]", ""))
    return folder


@pytest.mark.parametrize("classes", CLASSES)
def test_a_stored_model_is_verified_by_the_classes_that_it_tells_apart(
    classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    monkeypatch.setenv("MILLRACE_STORE__ARTEFACTS", str(tmp_path / "store"))
    artefact = untrained(Features(("x",), "f" * 64), classes)
    ArtefactStore(str(tmp_path / "store")).put(artefact)
    told = verified(artefact.digest[:12])
    assert (told["digest"], told["architecture"]["classes"]) == (artefact.digest, classes)


@pytest.mark.parametrize("architecture", ["linear", "mlp"])
@pytest.mark.parametrize("classes", CLASSES)
def test_a_model_has_as_many_classes_as_the_pipeline(classes: int, architecture: str, tmp_path: Path) -> None:
    pipeline: Pipeline = load_pipeline(declared(tmp_path, classes, architecture))
    assert spec_of(pipeline).architecture.classes == classes


def test_without_a_loop_more_than_two_classes_are_refused_before_anything_is_asked(tmp_path: Path) -> None:
    folder = declared(tmp_path, 3)
    with pytest.raises(Refused, match=r"some has 3 classes.*add \[policy.retrain\]"):
        train_and_announce(str(folder), 10, 1.0, 0)
