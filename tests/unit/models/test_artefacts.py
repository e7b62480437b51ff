import uuid
from pathlib import Path

import pytest

from shared.errors import Retry
from shared.models.manifest import MANIFEST, Artefact
from shared.models.safety import ModelRefused
from shared.store.artefacts import ArtefactMissing, ArtefactStore
from tests.unit.models.makers import artefact


@pytest.fixture(params=["folder", "file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtefactStore:
    urls = {
        "folder": str(tmp_path / "store"),
        "file": f"file://{tmp_path}/store",
        "memory": f"memory://{uuid.uuid4().hex}",
    }
    return ArtefactStore(urls[request.param])


def test_what_is_put_comes_back_under_its_digest(store: ArtefactStore) -> None:
    made = artefact()
    assert store.put(made) == made.digest
    assert store.put(made) == made.digest
    assert store.get(made.digest) == made
    assert store.digests() == [made.digest]


def test_an_absent_artefact_may_come_later(store: ArtefactStore) -> None:
    assert store.digests() == []
    with pytest.raises(ArtefactMissing):
        store.get("00" * 32)


@pytest.mark.parametrize("digest", ["../../etc", "AB" * 32, "", "00" * 32 + "/..", "http://other.example/"])
def test_nothing_but_a_digest_is_opened(store: ArtefactStore, digest: str) -> None:
    with pytest.raises(ModelRefused, match=r"announcement\.invalid"):
        store.get(digest)


def test_a_wrong_artefact_is_not_put(store: ArtefactStore) -> None:
    made = artefact()
    with pytest.raises(ModelRefused, match=r"digest\.mismatch"):
        store.put(Artefact(made.manifest, {**made.files, made.manifest.weights: b"other"}))
    assert store.digests() == []


def _stored(tmp_path: Path) -> tuple[ArtefactStore, Artefact, Path]:
    store = ArtefactStore(str(tmp_path))
    made = artefact()
    return store, made, tmp_path / store.put(made)


@pytest.mark.parametrize("name", [MANIFEST, "weights.safetensors", "golden.safetensors"])
@pytest.mark.parametrize("change", ["flipped", "shorter", "longer", "empty"])
def test_changed_bytes_are_a_digest_mismatch_and_put_repairs_them(
    tmp_path: Path, name: str, change: str
) -> None:
    store, made, folder = _stored(tmp_path)
    data = (folder / name).read_bytes()
    changed = {"flipped": data[:-9] + b"\x7f" + data[-8:], "shorter": data[:-1], "longer": data + b"x"}
    (folder / name).write_bytes(changed.get(change, b""))
    with pytest.raises(ModelRefused, match=r"digest\.mismatch"):
        store.get(made.digest)
    store.put(made)
    assert store.get(made.digest) == made


def test_a_file_that_is_not_there_yet_is_missing(tmp_path: Path) -> None:
    store, made, folder = _stored(tmp_path)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(ArtefactMissing):
        store.get(made.digest)


def test_a_store_that_cannot_be_written_is_a_retry(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"no folder")
    with pytest.raises(Retry, match="cannot be written"):
        ArtefactStore(f"{tmp_path}/store").put(artefact())


def test_a_store_knows_whether_it_is_there(store: ArtefactStore) -> None:
    assert not store.present()
    store.put(artefact())
    assert store.present()


def test_size_caps_are_checked_before_reading(tmp_path: Path) -> None:
    store, made, folder = _stored(tmp_path)
    with pytest.raises(ModelRefused, match=r"resources\.memory"):
        ArtefactStore(str(tmp_path), max_bytes=100).get(made.digest)
    with (folder / MANIFEST).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelRefused, match=r"manifest\.invalid"):
        store.get(made.digest)


def test_no_temporary_file_stays(tmp_path: Path) -> None:
    _, made, folder = _stored(tmp_path)
    assert {path.name for path in folder.iterdir()} == {MANIFEST, *made.files}
