"""Sealed segments: rows of labeled.v1 as Parquet, the same bytes for the same rows under the same pyarrow."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.retrainer.core.ledger import LedgerRows, hashed
from services.retrainer.core.recipe import SEGMENT_ROWS
from shared.codec.batch import Batch, Column, Strings
from shared.codec.layout import ColumnSpec
from shared.codec.program import Program
from shared.codec.reference import Subfield
from shared.contracts.generated import LABEL_KINDS

WRITER = f"pyarrow {pa.__version__}"
_DOUBLES = Subfield({"type": "array", "items": "double"})


def seal(batch: Batch, program: Program) -> bytes:
    """The Parquet file of rows in the labeled layout, in the order given; `probabilities` as a list column."""
    columns, fields = [], []
    for spec in program.columns:
        array = _array(spec, batch[spec.name], program.symbols)
        columns.append(array)
        fields.append(pa.field(spec.name, array.type, nullable=False))
    table = pa.Table.from_arrays(columns, schema=pa.schema(fields))
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=SEGMENT_ROWS,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=3,
        use_dictionary=True,
        write_statistics=True,
        store_schema=False,
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def unseal(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a segment again."""
    return pq.read_table(pa.BufferReader(data), columns=columns, use_threads=False)


def _array(spec: ColumnSpec, column: Column, symbols: Mapping[str, tuple[str, ...]]) -> pa.Array:
    if spec.kind == "opaque":
        return _lists(column.strings)
    if isinstance(column.values, Strings):
        kind = pa.string() if spec.kind == "string" else pa.binary()
        return _texts(column.strings, kind)
    if spec.kind == "enum":
        return pa.array(symbols[spec.name], pa.string()).take(pa.array(column.array))
    if spec.kind in ("boolean", "presence"):
        return pa.array(column.array.astype(np.bool_))
    kinds = {"double": np.float64, "float": np.float32, "int": np.int32}
    return pa.array(np.ascontiguousarray(column.array, kinds.get(spec.kind, np.int64)))


def _texts(texts: Strings, kind: pa.DataType) -> pa.Array:
    whole = texts.compact()
    ends = np.zeros(len(whole) + 1, np.int32)
    np.cumsum(whole.lengths, out=ends[1:])
    return pa.Array.from_buffers(
        kind, len(whole), [None, pa.py_buffer(ends.tobytes()), pa.py_buffer(whole.data.tobytes())]
    )


def _lists(encoded: Strings) -> pa.Array:
    """Avro arrays of doubles; those without an item are a single zero byte each."""
    if bool((encoded.lengths == 1).all()):
        values: list[list[float]] = [[]] * len(encoded)
    else:
        values = [_DOUBLES.decode(each) for each in encoded.to_list()]
    return pa.array(values, pa.list_(pa.field("element", pa.float64(), nullable=False)))


def ledger_rows(tables: Sequence[pa.Table], features: Sequence[str]) -> LedgerRows:
    """Segments, oldest first, as the rows that are learnt from, up to what the tables hold."""
    table = pa.concat_tables(tables)
    kinds = pa.array(LABEL_KINDS)
    sources = sorted(set(table["label_source"].unique().to_pylist()))
    return LedgerRows(
        sequences=_ints(table, "sequence"),
        ids=hashed(Strings.of([each.encode() for each in table["event_id"].to_pylist()])),
        kinds=np.asarray(_index_in(table["kind"], kinds), np.int64),
        classes=_ints(table, "label_class"),
        previous=_ints(table, "previous_class"),
        shadow=np.asarray(pc.equal(table["role"], "shadow").to_numpy(), np.bool_),
        event_times=_ints(table, "event_time"),
        sources=tuple(sources),
        source=np.asarray(_index_in(table["label_source"], pa.array(sources, pa.string())), np.int64),
        matrix=np.column_stack([table[f"features.{name}"].to_numpy() for name in features]),
    )


def _ints(table: pa.Table, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.asarray(table[name].to_numpy(), np.int64)


def _index_in(column: pa.ChunkedArray, values: pa.Array) -> Any:
    return pc.index_in(column, values).to_numpy()


def first_difference(ours: bytes, theirs: bytes) -> str | None:
    """None for the same bytes; else where they part, as row and column where both can be read."""
    if ours == theirs:
        return None
    try:
        return _differing_cell(unseal(ours), unseal(theirs))
    except pa.ArrowInvalid as error:
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
        place = f"byte {at}" if at is not None else f"their lengths, {len(ours)} and {len(theirs)}"
        return f"{place} ({str(error).splitlines()[0][:100]})"


def _differing_cell(ours: pa.Table, theirs: pa.Table) -> str:
    if ours.schema != theirs.schema:
        return "their columns"
    if len(ours) != len(theirs):
        return f"their number of rows, {len(ours)} and {len(theirs)}"
    found = []
    for name in ours.column_names:
        if not ours[name].equals(theirs[name]):  # NaN too is unequal here; its text is not
            pairs = zip(ours[name].to_pylist(), theirs[name].to_pylist(), strict=True)
            found += [(row, name, a, b) for row, (a, b) in enumerate(pairs) if repr(a) != repr(b)][:1]
    if not found:
        return "the bytes around the same rows: another writer"
    row, name, a, b = min(found, key=lambda each: each[0])
    return f"row {row}, {name}: {a!r} and {b!r}"
