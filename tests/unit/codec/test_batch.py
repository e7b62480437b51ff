"""Views, copies and joins of columns are what lists of Python bytes say."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.codec.batch import Batch, Column, Strings, concat_columns

texts = st.lists(st.binary(max_size=30), max_size=12)
# The first example compiles a kernel.
patient = settings(deadline=None)


@patient
@given(st.lists(texts, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_strings_behave_like_lists(parts: list[list[bytes]], random: Random) -> None:
    flat = [text for part in parts for text in part]
    joined = Strings.concat([Strings.of(part) for part in parts])
    assert joined.to_list() == flat
    order = [random.randrange(len(flat)) for _ in range(5)] if flat else []
    taken = joined.take(np.array(order, np.int64))
    assert taken.to_list() == [flat[i] for i in order]
    packed = taken.compact()
    assert packed.to_list() == taken.to_list()
    assert packed.data.tobytes() == b"".join(flat[i] for i in order)


def test_few_rows_of_a_big_buffer_cost_their_own_bytes() -> None:
    big = Strings(np.full(1_000_000, 120, np.uint8), np.array([5, 999_000]), np.array([2, 3]))
    assert big.to_list() == [b"xx", b"xxx"]
    assert big.compact().data.size == 5


@patient
@given(texts, st.data())
def test_choose_takes_each_row_from_one_side(rows: list[bytes], data: st.DataObject) -> None:
    others = [row[::-1] + b"!" for row in rows]
    mask = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    chosen = Strings.choose(np.array(mask, np.bool_), Strings.of(rows), Strings.of(others))
    assert chosen.to_list() == [a if yes else b for yes, a, b in zip(mask, rows, others, strict=True)]


def test_plain_is_of_one_kind_whatever_comes_in() -> None:
    rows = Strings.of([b"abc", b"d", b"ef"])
    odd = Strings(rows.data.copy(), rows.starts[::2], rows.lengths[::2].astype(np.int32))
    for strings in (rows, odd, rows.compact()):
        for array in strings.plain():
            assert array.flags.c_contiguous
            assert not array.flags.writeable
    assert odd.compact().to_list() == [b"abc", b"ef"]
    assert odd.data.flags.writeable


def test_columns_join_with_and_without_masks() -> None:
    joined = concat_columns([Column(np.array([1, 2])), Column(np.array([3, 4]), np.array([True, False]))])
    assert joined.array.tolist() == [1, 2, 3, 4]
    assert joined.mask().tolist() == [True, True, True, False]


def test_a_batch_has_columns_of_one_length() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        Batch.of({"a": np.zeros(2), "b": np.zeros(3)})
    batch = Batch.of({"a": np.arange(4), "b": Strings.of([b"w", b"x", b"y", b"z"])})
    part = batch.take(np.array([True, False, False, True]))
    assert (part.rows, part["a"].array.tolist(), part["b"].strings.to_list()) == (2, [0, 3], [b"w", b"z"])
    assert Batch.concat([part, part])["b"].strings.to_list() == [b"w", b"z", b"w", b"z"]
    with pytest.raises(TypeError, match=r"use \.strings"):
        _ = batch["b"].array
    with pytest.raises(TypeError, match=r"use \.array"):
        _ = batch["a"].strings
