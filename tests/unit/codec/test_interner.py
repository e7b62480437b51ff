"""An interner is a dict from bytes to the order of their first appearance."""

from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.codec import interner as module
from shared.codec.batch import Strings
from shared.codec.interner import Interner

# The first example compiles a kernel.
patient = settings(deadline=None)
keys = st.binary(max_size=3) | st.binary(max_size=40)
batches = st.lists(st.lists(keys, max_size=30), max_size=6)


@patient
@given(batches, st.lists(keys, max_size=10))
def test_behaves_like_a_dict(parts: list[list[bytes]], asked: list[bytes]) -> None:
    table, model = Interner(), dict[bytes, int]()
    for part in parts:
        expected = [model.setdefault(key, len(model)) for key in part]
        assert table.intern(Strings.of(part)).tolist() == expected
    assert table.lookup(Strings.of(asked)).tolist() == [model.get(key, -1) for key in asked]
    assert table.keys().to_list() == list(model) == [table.key(i) for i in range(len(table))]
    assert len(table) == len(model)


@patient
@given(st.sets(keys, max_size=40), st.randoms(use_true_random=False), st.integers(0, 40))
def test_keep_renumbers_in_the_given_order(known: set[bytes], random: Random, n: int) -> None:
    table = Interner()
    table.intern(Strings.of(list(known)))
    order = list(range(len(known)))
    random.shuffle(order)
    kept = [table.key(i) for i in order[:n]]
    table.keep(np.array(order[:n], np.int64))
    assert table.keys().to_list() == kept
    assert table.lookup(Strings.of(list(known))).tolist() == [
        kept.index(key) if key in kept else -1 for key in known
    ]
    assert table.intern(Strings.of([b"new" * 20])).tolist() == [len(kept)]


@patient
@given(batches)
def test_snapshot_restores(parts: list[list[bytes]]) -> None:
    table, other = Interner(), Interner()
    other.intern(Strings.of([b"forgotten"]))
    for part in parts:
        table.intern(Strings.of(part))
    snapshot = table.snapshot()
    other.restore(snapshot)
    assert other.keys().to_list() == table.keys().to_list()
    assert {name: array.tolist() for name, array in other.snapshot().items()} == {
        name: array.tolist() for name, array in snapshot.items()
    }
    assert other.intern(table.keys()).tolist() == list(range(len(table)))


def test_many_keys_grow_the_table() -> None:
    rows = [b"key-%d" % i for i in range(20_000)] + [b"long" * 50_000]
    table = Interner()
    assert table.intern(Strings.of(rows)).tolist() == list(range(len(rows)))
    assert table.lookup(Strings.of(rows[::-1])).tolist() == list(range(len(rows)))[::-1]


@pytest.mark.parametrize("key", [b"b", b"", b"aa", b"a"])
def test_keys_with_equal_hashes_stay_apart(key: bytes) -> None:
    """Only the bytes decide, even where a key's slot and tag point to another key."""
    table = Interner()
    table.intern(Strings.of([b"a"]))
    table._slots[:] = 0
    # Claim that the key hashes to where b"a" is kept, tag and all.
    _, at, tag = module._find(*one(key), *seeded(table))
    table._slots[at] = tag | np.uint64(1)
    assert table.lookup(Strings.of([key])).tolist() == [0 if key == b"a" else -1]


def test_what_is_absent_is_never_looked_for_in_vain() -> None:
    """A table without a free slot would search for ever."""
    table = Interner()
    for i in range(300):
        table.intern(Strings.of([b"%d" % i]))
        assert table.lookup(Strings.of([b"absent"])).tolist() == [-1]


def one(key: bytes) -> tuple[npt.NDArray[Any], int, int]:
    return np.frombuffer(key, np.uint8), 0, len(key)


def seeded(table: Interner) -> tuple[Any, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    return table._seed, *table._table()


def test_unknown_ids_are_refused() -> None:
    table = Interner()
    table.intern(Strings.of([b"a", b"b"]))
    with pytest.raises(IndexError, match="no key 2"):
        table.key(2)
    with pytest.raises(IndexError, match=r"0\.\.1"):
        table.keep(np.array([-1]))
    with pytest.raises(ValueError, match="stands twice"):
        table.keep(np.array([1, 1]))
    assert table.keys().to_list() == [b"a", b"b"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"data": np.zeros(3, np.uint8), "lengths": np.array([4])}, "as many bytes"),
        ({"data": np.zeros(3, np.uint8), "lengths": np.array([4, -1])}, "as many bytes"),
        ({"data": np.zeros(3), "lengths": np.array([3])}, "uint8"),
        ({"data": np.zeros(2, np.uint8), "lengths": np.array([1, 1])}, "twice"),
    ],
)
def test_a_broken_snapshot_is_refused(arrays: dict[str, npt.NDArray[Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Interner().restore(arrays)
