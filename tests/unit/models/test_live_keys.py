"""Keys that are trusted while a worker runs are obeyed by it."""

from pathlib import Path

import pytest

from shared.models.signing import KeyFolder, LiveKeys, key_id


def test_key_made_after_the_worker_started_is_found(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "keys")
    keys = LiveKeys(folder)
    assert len(keys) == 0
    public = folder.signer().public_key()
    assert keys.get(key_id(public)) is not None


def test_unknown_key_stays_unknown(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "keys")
    folder.signer()
    keys = LiveKeys(folder)
    assert keys.get("0" * 16) is None
    with pytest.raises(KeyError):
        keys["0" * 16]
