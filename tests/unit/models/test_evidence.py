"""Evidence: what was packed is read again, and nothing else is read."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import Refused
from shared.models.evidence import Evidence, digest, pack, unpack


def made(classes: int = 2, rows: int = 50) -> Evidence:
    rng = np.random.default_rng(classes)
    shape = (rows,) if classes == 2 else (rows, classes)
    return Evidence(
        classes,
        np.arange(rows, dtype=np.int64) * 3,
        rng.integers(0, classes, rows).astype(np.uint8),
        rng.random(shape).astype(np.float32),
        rng.random(shape).astype(np.float32),
        ("night", "größe"),
        rng.integers(0, 4, rows).astype(np.uint64),
        ("", "bank", "shop"),
        rng.integers(0, 3, rows).astype(np.uint16),
    )


@pytest.mark.parametrize("classes", [2, 3, 12])
def test_round_trip(classes: int) -> None:
    evidence = made(classes)
    data = pack(evidence)
    again = unpack(data)
    assert pack(again) == data
    assert digest(data) == digest(pack(again))
    for name in ("sequences", "labels", "champion", "candidate", "slices", "sources"):
        assert np.array_equal(getattr(again, name), getattr(evidence, name))
    assert again.slice_names == evidence.slice_names
    assert again.in_slice(1).tolist() == ((evidence.slices & np.uint64(2)) != 0).tolist()


def test_every_cut_and_every_tail_is_refused() -> None:
    data = pack(made(rows=5))
    for cut in range(len(data)):
        with pytest.raises(Refused):
            unpack(data[:cut])
    with pytest.raises(Refused):
        unpack(data + b"\0")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_bytes_changed_anywhere_are_refused_or_read_as_themselves(data: st.DataObject) -> None:
    good = bytearray(pack(made(rows=4)))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = unpack(bytes(good))
    except Refused:
        return
    assert pack(read) == bytes(good)


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        unpack(data)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("a label beyond the classes", {"labels": np.full(50, 2, np.uint8)}),
        ("NaN", {"candidate": np.full(50, np.nan, np.float32)}),
        ("above one", {"champion": np.full(50, 1.5, np.float32)}),
        ("scores of another length", {"champion": np.zeros(49, np.float32)}),
        ("a source without name", {"sources": np.full(50, 3, np.uint16)}),
        ("a slice without name", {"slices": np.full(50, 4, np.uint64)}),
        ("sequences that stand still", {"sequences": np.zeros(50, np.int64)}),
        ("a name twice", {"slice_names": ("night", "night")}),
        ("too many rows", {"labels": np.zeros(10_001, np.uint8)}),
        ("one class", {"classes": 1}),
    ],
)
def test_what_no_honest_writer_says(what: str, change: dict[str, object]) -> None:
    wrong = replace(made(), **change)  # type: ignore[arg-type]
    with pytest.raises(Refused, match="evidence"):
        pack(wrong)
    assert what
