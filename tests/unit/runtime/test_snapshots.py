"""Snapshots: whole or passed over, never ahead of what was committed, plain arrays only."""

from pathlib import Path

import numpy as np
import pytest

from shared.errors import Fatal
from shared.runtime.snapshots import Snapshot, SnapshotStore


def snapshot(offset: int) -> Snapshot:
    return Snapshot({"in": offset}, f"digest-{offset}", {"state": np.array([offset, offset + 1])})


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(str(tmp_path), "pipeline", "stage")


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.npz"))


def test_what_was_written_is_read(store: SnapshotStore) -> None:
    store.write(3, snapshot(10))
    found = store.newest(3, {"in": 10})
    assert found is not None
    assert (found.next_offsets, found.digest) == ({"in": 10}, "digest-10")
    assert found.arrays["state"].tolist() == [10, 11]


def test_units_do_not_see_each_other(store: SnapshotStore) -> None:
    store.write(3, snapshot(10))
    assert store.newest(2, {"in": 10}) is None


def test_one_ahead_of_the_commit_is_passed_over(store: SnapshotStore) -> None:
    store.write(0, snapshot(10))
    store.write(0, snapshot(20))
    found = store.newest(0, {"in": 19})
    assert found is not None
    assert found.next_offsets == {"in": 10}
    assert store.newest(0, {"in": 9}) is None


def test_a_broken_one_is_passed_over(store: SnapshotStore, tmp_path: Path) -> None:
    store.write(0, snapshot(10))
    store.write(0, snapshot(20))
    newest = files(tmp_path)[-1]
    raw = bytearray(newest.read_bytes())
    raw[len(raw) // 2] ^= 1
    newest.write_bytes(bytes(raw))
    found = store.newest(0, {"in": 20})
    assert found is not None
    assert found.next_offsets == {"in": 10}


def test_one_of_a_topic_that_was_made_again_is_passed_over(store: SnapshotStore) -> None:
    store.write(0, Snapshot({"in": 10}, "", {}, {"in": "first"}))
    assert store.newest(0, {"in": 10}, {"in": "second"}) is None
    found = store.newest(0, {"in": 10}, {"in": "first"})
    assert found is not None
    assert found.topic_ids == {"in": "first"}


def test_only_the_last_two_are_kept(store: SnapshotStore, tmp_path: Path) -> None:
    for offset in range(5):
        store.write(0, snapshot(offset))
    assert len(files(tmp_path)) == 2


def test_objects_are_refused(store: SnapshotStore) -> None:
    with pytest.raises(Fatal, match="plain arrays"):
        store.write(0, Snapshot({}, "", {"state": np.array([object()])}))
