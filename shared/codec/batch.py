"""Columns of records: what flows between decode, merge, fold and encode.

A `Batch` has one `Column` a field, all of the same length. Fixed-width values are numpy arrays; texts and
bytes are `Strings`, views into a shared byte buffer, so that decoding copies nothing and selecting rows
copies only two integers a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.codec.words import copy
from shared.kernels import kernel

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@kernel
def _gather(data: Bytes, starts: Ints, lengths: Ints, out: Bytes, out_starts: Ints) -> None:
    for row in range(starts.size):
        copy(data, starts[row], lengths[row], out, out_starts[row])


@dataclass(frozen=True, slots=True)
class Strings:
    """Rows of bytes as views: row i is `data[starts[i] : starts[i] + lengths[i]]`.

    >>> Strings.of([b"ab", b"", b"c"]).take(np.array([2, 0])).to_list()
    [b'c', b'ab']
    """

    data: Bytes
    starts: Ints
    lengths: Ints

    def __len__(self) -> int:
        return int(self.starts.size)

    @staticmethod
    def of(rows: Sequence[bytes]) -> "Strings":
        """Pack Python bytes, one row each, into one buffer."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        data = np.frombuffer(b"".join(rows), np.uint8)
        return Strings(data, ends_to_starts(lengths), lengths)

    @staticmethod
    def packed(data: Bytes, lengths: Ints) -> "Strings":
        """Rows that lie one behind the other in `data`."""
        return Strings(data, ends_to_starts(lengths), lengths)

    @staticmethod
    def repeated(value: bytes, rows: int) -> "Strings":
        """The same bytes in every row."""
        return Strings(
            np.frombuffer(value, np.uint8), np.zeros(rows, np.int64), np.full(rows, len(value), np.int64)
        )

    def plain(self) -> tuple[Bytes, Ints, Ints]:
        """Data, starts and lengths as read-only C-contiguous arrays: one and the same type for every kernel.

        Numba compiles a kernel anew for each mix of writable, read-only and strided arguments; what comes
        from here is always of one kind. Nothing is copied unless it is strided or of another dtype.
        """
        return (
            frozen(self.data, np.uint8),
            frozen(self.starts, np.int64),
            frozen(self.lengths, np.int64),
        )

    def take(self, index: npt.NDArray[Any]) -> "Strings":
        """The rows that `index` (positions or a mask) names; shares the buffer."""
        return Strings(self.data, self.starts[index], self.lengths[index])

    def compact(self) -> "Strings":
        """The same rows in a buffer of their own, one behind the other; frees what they shared."""
        out_starts = ends_to_starts(self.lengths)
        out = np.empty(int(self.lengths.sum()), np.uint8)
        _gather(*self.plain(), out, out_starts)
        return Strings(out, out_starts, self.lengths)

    def to_list(self) -> list[bytes]:
        """One Python bytes a row."""
        if self.data.size > 4 * int(self.lengths.sum()) + 4096:
            return self.compact().to_list()
        raw = self.data.tobytes()
        ends = self.starts + self.lengths
        return [raw[a:b] for a, b in zip(self.starts.tolist(), ends.tolist(), strict=True)]

    @staticmethod
    def choose(mask: Mask, yes: "Strings", no: "Strings") -> "Strings":
        """Row i of `yes` where `mask` is set, else of `no`."""
        if yes.data is no.data:
            data, shift = yes.data, 0
        else:
            data, shift = np.concatenate([yes.data, no.data]), yes.data.size
        return Strings(
            data, np.where(mask, yes.starts, no.starts + shift), np.where(mask, yes.lengths, no.lengths)
        )

    @staticmethod
    def concat(parts: Sequence["Strings"]) -> "Strings":
        """All rows of all parts, in order, in a new buffer."""
        if len(parts) == 1:
            return parts[0]
        lengths = np.concatenate([part.lengths for part in parts])
        starts = ends_to_starts(lengths)
        out = np.empty(int(lengths.sum()), np.uint8)
        row = 0
        for part in parts:
            _gather(*part.plain(), out, starts[row : row + len(part)])
            row += len(part)
        return Strings(out, starts, lengths)


def frozen(array: npt.NDArray[Any], dtype: type[np.generic]) -> npt.NDArray[Any]:
    """`array` as a read-only C-contiguous array of `dtype`; copied only where it is not one already."""
    array = np.ascontiguousarray(array, dtype)
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


def ends_to_starts(lengths: Ints) -> Ints:
    """Where each of several pieces begins when they lie one behind the other."""
    starts = np.zeros(lengths.size, np.int64)
    np.cumsum(lengths[:-1], out=starts[1:])
    return starts


@dataclass(frozen=True, slots=True)
class Column:
    """One field of all rows; where `valid` is False the value is null and means nothing."""

    values: npt.NDArray[Any] | Strings
    valid: Mask | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def array(self) -> npt.NDArray[Any]:
        """The fixed-width values; a TypeError for texts."""
        if isinstance(self.values, Strings):
            raise TypeError("this column holds texts; use .strings")
        return self.values

    @property
    def strings(self) -> Strings:
        """The texts; a TypeError for fixed-width values."""
        if not isinstance(self.values, Strings):
            raise TypeError("this column holds fixed-width values; use .array")
        return self.values

    def mask(self) -> Mask:
        """Which rows are not null."""
        return np.ones(len(self), np.bool_) if self.valid is None else self.valid

    def take(self, index: npt.NDArray[Any]) -> "Column":
        """The rows that `index` names."""
        values = self.values.take(index) if isinstance(self.values, Strings) else self.values[index]
        return Column(values, None if self.valid is None else self.valid[index])


def concat_columns(parts: Sequence[Column]) -> Column:
    """All rows of all parts, in order."""
    valid = None
    if any(part.valid is not None for part in parts):
        valid = np.concatenate([part.mask() for part in parts])
    if isinstance(parts[0].values, Strings):
        return Column(Strings.concat([part.strings for part in parts]), valid)
    return Column(np.concatenate([part.array for part in parts]), valid)


@dataclass(frozen=True, slots=True)
class Batch:
    """Records as columns, by field name; nested fields are named `outer.inner`.

    >>> batch = Batch.of({"x": np.array([3.0, 1.0])})
    >>> batch.take(np.array([1]))["x"].array.tolist()
    [1.0]
    """

    columns: Mapping[str, Column] = field(default_factory=dict)
    rows: int = 0

    @staticmethod
    def of(columns: Mapping[str, npt.NDArray[Any] | Strings | Column]) -> "Batch":
        """A batch of plain arrays, texts or columns, all of one length."""
        made = {name: c if isinstance(c, Column) else Column(c) for name, c in columns.items()}
        sizes = {len(column) for column in made.values()}
        if len(sizes) > 1:
            raise ValueError(f"columns of different lengths: { {n: len(c) for n, c in made.items()} }")
        return Batch(made, sizes.pop() if sizes else 0)

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def take(self, index: npt.NDArray[Any]) -> "Batch":
        """The rows that `index` (positions or a mask) names."""
        rows = int(np.count_nonzero(index)) if index.dtype == np.bool_ else int(index.size)
        return Batch({name: column.take(index) for name, column in self.columns.items()}, rows)

    def having(self, **columns: npt.NDArray[Any] | Strings | Column) -> "Batch":
        """This batch with columns added or replaced."""
        added = {name: c if isinstance(c, Column) else Column(c) for name, c in columns.items()}
        return Batch.of({**self.columns, **added})

    @staticmethod
    def concat(parts: Sequence["Batch"]) -> "Batch":
        """All rows of all parts, in order; every part has the same columns."""
        if len(parts) == 1:
            return parts[0]
        names = parts[0].columns
        return Batch(
            {name: concat_columns([part[name] for part in parts]) for name in names},
            sum(part.rows for part in parts),
        )
