"""Avro at column speed: a schema compiled to a program that kernels run over all rows of a batch at once.

>>> fields = [{"name": "x", "type": "long"}, {"name": "s", "type": "string"}]
>>> program = compile_program({"type": "record", "name": "R", "fields": fields})
>>> decoded = program.decode(Strings.of([bytes([6, 2, 0x61]), bytes([6, 8])]))
>>> decoded.batch["x"].array.tolist(), [STATUS_REASONS[s] for s in decoded.status.tolist()]
([3, 3], ['ok', 'avro.eof'])
>>> program.encode(decoded.batch.take(np.array([0]))).to_list()
[b'\\x06\\x02a']
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.codec.batch import Batch, Column, Ints, Mask, Strings
from shared.codec.decode import Status, decode_rows
from shared.codec.encode import encode_rows
from shared.codec.layout import TEXTS, ColumnSpec, Layout, lay_out
from shared.codec.ops import STATUS_REASONS, VIEW
from shared.codec.plan import Plan, plan_decode, plan_encode
from shared.codec.schema import Node, Schema, parse_schema
from shared.errors import Refused

__all__ = ["STATUS_REASONS", "Decoded", "EncodeRefused", "Program", "compile_program", "make_program"]

# What a column's dtype may be when it is encoded, by numpy's kind letters.
_WHOLE = "iu"
_REAL = "fiu"


class EncodeRefused(Refused):
    """A batch that does not fit the schema; nothing was encoded. The message names columns and the row."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One batch row a datum; rows whose `status` is not 0 (an index into `STATUS_REASONS`) mean nothing."""

    batch: Batch
    status: Status


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled schema; make it with `compile_program` or `resolve_program` and keep it."""

    layout: Layout
    plan: Plan
    symbols: Mapping[str, tuple[str, ...]]
    _write: Ints = field(repr=False)
    _most_bytes: int = field(repr=False)
    _line_names: tuple[str, ...] = field(repr=False)

    @property
    def columns(self) -> tuple[ColumnSpec, ...]:
        """The columns of the (reader's) schema in order."""
        return self.layout.columns

    def decode(self, values: Strings) -> Decoded:
        """Read one datum a row, without frame; texts are views of `values`' buffer. Bad rows stay alone.

        ValueError when `values` points outside its buffer.
        """
        rows, plan = len(values), self.plan
        data, starts, lengths = values.plain()
        numbers = np.zeros((plan.numbers, rows), np.int64)
        doubles = numbers.view(np.float64)
        texts = np.zeros((2, plan.texts, rows), np.int64)
        flags = np.zeros((plan.flags, rows), np.bool_)
        status = np.zeros(rows, np.int8)
        decode_rows(
            data,
            starts,
            lengths,
            plan.program,
            plan.targets,
            plan.depth,
            numbers,
            doubles,
            texts[0],
            texts[1],
            flags,
            status,
        )
        if rows and int(status.max()) == VIEW:
            raise ValueError(f"row {int(np.argmax(status))} points outside its buffer")
        columns = _Assembly(values, list(numbers), list(doubles), texts, list(flags)).columns(self)
        return Decoded(Batch(columns, rows), status)

    def encode(self, batch: Batch, prefix: bytes = b"") -> Strings:
        """Write one datum a row behind `prefix`; the rows lie one behind the other in one new buffer.

        Columns that the schema does not have are left out. EncodeRefused names what is missing, of the wrong
        dtype, null where it must not be, out of range or not UTF-8. Opaque columns are written as they are.
        """
        missing = [spec.name for spec in self.columns if spec.name not in batch.columns]
        if missing:
            raise EncodeRefused(f"the batch lacks the columns {', '.join(missing)}")
        gathered = _Gathered(self.layout, batch.rows)
        for index, spec in enumerate(self.columns):
            gathered.add(index, spec, batch.columns[spec.name])
        starts = np.empty(batch.rows, np.int64)
        lengths = np.empty(batch.rows, np.int64)
        out, used, wrong, row, line = encode_rows(
            self._write,
            self._most_bytes,
            np.frombuffer(prefix, np.uint8),
            gathered.numbers,
            gathered.flags,
            gathered.texts[0],
            gathered.texts[1],
            gathered.addresses,
            gathered.limits,
            starts,
            lengths,
        )
        if wrong:
            raise EncodeRefused(f"column {self._line_names[line]}, row {row}: {STATUS_REASONS[wrong]}")
        return Strings(out[:used], starts, lengths)


def compile_program(schema: Schema) -> Program:
    """The program of one schema (parsed JSON); SchemaRefused when the codec does not take it."""
    node = parse_schema(schema)
    return make_program(node, node)


def make_program(writer: Node, reader: Node) -> Program:
    """A program that reads what `writer` describes into the columns of `reader`, and writes `reader`."""
    layout = lay_out(reader)
    plan = plan_decode(writer, reader, layout)
    write, most_bytes, names = plan_encode(reader, layout)
    symbols = {spec.name: spec.node.symbols for spec in layout.columns if spec.kind == "enum"}
    return Program(layout, plan, symbols, write, most_bytes, tuple(names))


@dataclass(slots=True)
class _Assembly:
    """What the decoding kernel has filled, about to become columns."""

    values: Strings
    numbers: list[Ints]
    doubles: list[npt.NDArray[np.float64]]
    texts: npt.NDArray[np.int64]
    flags: list[Mask]

    def columns(self, program: Program) -> dict[str, Column]:
        constants = program.plan.constants
        made = {}
        data = self.values.data
        begins, sizes = list(self.texts[0]), list(self.texts[1])
        for spec in program.layout.columns:
            valid = self.flags[spec.valid] if spec.valid >= 0 else None
            slot = spec.slot
            kind = spec.kind
            values: npt.NDArray[Any] | Strings
            if spec.name in constants:
                values = _constant(spec, constants[spec.name], len(self.values))
            elif kind in TEXTS:
                values = Strings(data, begins[slot], sizes[slot])
            elif kind == "int" or kind == "long":
                values = self.numbers[slot]
            elif kind == "double" or kind == "float":
                values = self.doubles[slot]
            elif kind == "enum":
                values = self.numbers[slot].astype(np.int32)
            else:
                values = self.flags[slot]
            made[spec.name] = Column(values, valid)
        return made


def _constant(spec: ColumnSpec, value: Any, rows: int) -> npt.NDArray[Any] | Strings:
    if spec.kind in TEXTS:
        return Strings.repeated(value, rows)
    dtypes = {"boolean": np.bool_, "enum": np.int32, "float": np.float64, "double": np.float64}
    if spec.kind == "float":
        value = np.float32(value)
    return np.full(rows, value, dtypes.get(spec.kind, np.int64))


class _Gathered:
    """A batch's columns as the few matrices that the encoding kernel takes."""

    def __init__(self, layout: Layout, rows: int) -> None:
        self.layout = layout
        self.rows = rows
        self.numbers = np.empty((layout.numbers, rows), np.int64)
        self.doubles = self.numbers.view(np.float64)
        self.texts = np.empty((2, layout.texts, rows), np.int64)
        self.flags = np.ones((layout.flags + len(layout.columns), rows), np.bool_)
        self.addresses = np.zeros(layout.texts, np.int64)
        self.limits = np.zeros(layout.texts, np.int64)
        self._held: dict[int, tuple[npt.NDArray[np.uint8], int]] = {}

    def add(self, index: int, spec: ColumnSpec, column: Column) -> None:
        """Take one column; EncodeRefused when its length or dtype is wrong."""
        values, valid = column.values, column.valid
        if len(values) != self.rows or (valid is not None and len(valid) != self.rows):
            raise EncodeRefused(f"column {spec.name} has {len(values)} rows, the batch {self.rows}")
        if valid is not None and spec.kind != "presence":
            self.flags[spec.valid if spec.nullable else self.layout.flags + index] = valid
        if isinstance(values, Strings):
            self._texts(spec, values)
        elif spec.kind in ("int", "long", "enum"):
            self._expect(spec, values, _WHOLE)
            self.numbers[spec.slot] = values
        elif spec.kind == "double":
            self._expect(spec, values, _REAL)
            self.doubles[spec.slot] = values
        elif spec.kind == "float":
            self._expect(spec, values, _REAL)
            with np.errstate(over="ignore"):
                self.numbers[spec.slot] = values.astype(np.float32).view(np.int32)
        elif spec.kind == "boolean":
            self._expect(spec, values, "b")
            self.flags[spec.slot] = values
        elif spec.kind == "presence":
            self._expect(spec, values, "b")
            self.flags[spec.slot] = values if valid is None else values & valid
        else:
            raise EncodeRefused(f"column {spec.name} holds {values.dtype}, the schema wants {spec.kind}")

    def _expect(self, spec: ColumnSpec, values: npt.NDArray[Any], kinds: str) -> None:
        if values.dtype.kind not in kinds or (values.dtype == np.uint64 and spec.kind == "long"):
            raise EncodeRefused(f"column {spec.name} holds {values.dtype}, the schema wants {spec.kind}")

    def _texts(self, spec: ColumnSpec, values: Strings) -> None:
        if spec.kind not in TEXTS:
            raise EncodeRefused(f"column {spec.name} holds texts, the schema wants {spec.kind}")
        held = self._held.get(id(values.data))
        if held is None:
            # The array stays in the table, so that its address stays true until the kernel is done.
            data = np.ascontiguousarray(values.data, np.uint8)
            held = self._held[id(values.data)] = (data, data.__array_interface__["data"][0])
        self.texts[0, spec.slot] = values.starts
        self.texts[1, spec.slot] = values.lengths
        self.addresses[spec.slot] = held[1]
        self.limits[spec.slot] = held[0].size
