"""The columnar codec and the reference agree: on schemas that the lint admits, values, hostile bytes."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.codec.batch import Batch, Strings
from shared.codec.layout import ColumnSpec
from shared.codec.ops import STATUS_REASONS
from shared.codec.program import Program, compile_program
from shared.codec.reference import Reference, Subfield, avro_of
from shared.errors import BadRecord

Schema = dict[str, Any]
# Kernels compile at the first example.
thorough = settings(deadline=None, max_examples=150)


@dataclass
class Typed:
    """An Avro type and how to draw its values."""

    schema: Any
    values: st.SearchStrategy[Any]


INTS = st.integers(-(2**31), 2**31 - 1)
LONGS = st.integers(-(2**63), 2**63 - 1) | st.integers(-70, 70)
SCALARS = [
    Typed("boolean", st.booleans()),
    Typed("int", INTS),
    Typed({"type": "int", "logicalType": "date"}, INTS),
    Typed("long", LONGS),
    Typed({"type": "long", "logicalType": "timestamp-millis"}, LONGS),
    Typed("float", st.floats(width=32)),
    Typed("double", st.floats()),
    Typed("string", st.text(max_size=20)),
    Typed({"type": "string", "logicalType": "uuid"}, st.text(max_size=20)),
    Typed("bytes", st.binary(max_size=20)),
    Typed({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, st.binary(max_size=9)),
]


class Drawer:
    """Draws types; names are numbered so that no two are alike."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.names = 0

    def name(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names}"

    def type(self, depth: int) -> Typed:
        kinds = ["scalar", "scalar", "enum", "fixed", "optional"]
        if depth > 0:
            kinds += ["record", "optional record", "array", "map", "union"]
        match self.draw(st.sampled_from(kinds)):
            case "enum":
                symbols = [f"S{i}" for i in range(self.draw(st.integers(1, 70)))]
                named = {"type": "enum", "name": self.name("E"), "symbols": symbols}
                return Typed(named, st.sampled_from(symbols))
            case "fixed":
                size = self.draw(st.integers(1, 17))
                sized: Schema = {"type": "fixed", "name": self.name("F"), "size": size}
                return Typed(sized, st.binary(min_size=size, max_size=size))
            case "optional":
                return self.optional(self.scalar())
            case "record":
                return self.record(depth - 1)
            case "optional record":
                return self.optional(self.record(depth - 1))
            case "array":
                items = self.type(depth - 1)
                return Typed({"type": "array", "items": items.schema}, st.lists(items.values, max_size=4))
            case "map":
                items = self.type(depth - 1)
                return Typed(
                    {"type": "map", "values": items.schema},
                    st.dictionaries(st.text(max_size=5), items.values, max_size=3),
                )
            case "union":
                return self.union(depth - 1)
        return self.scalar()

    def scalar(self) -> Typed:
        return self.draw(st.sampled_from(SCALARS))

    def optional(self, inner: Typed) -> Typed:
        branches = ["null", inner.schema]
        return Typed(branches if self.draw(st.booleans()) else branches[::-1], st.none() | inner.values)

    def union(self, depth: int) -> Typed:
        members: dict[str, st.SearchStrategy[Any]] = {
            "null": st.none(),
            "long": LONGS,
            "string": st.text(max_size=9),
            "double": st.floats(),
        }
        chosen = self.draw(st.lists(st.sampled_from(sorted(members)), unique=True, min_size=1))
        record = self.record(depth)
        branches = [(name, members[name]) for name in chosen] + [(record.schema, record.values)]
        return Typed([schema for schema, _ in branches], st.one_of([values for _, values in branches]))

    def record(self, depth: int) -> Typed:
        fields = {
            self.name("f"): self.type(depth) for _ in range(self.draw(st.integers(1, 4 if depth else 2)))
        }
        schema = {
            "type": "record",
            "name": self.name("R"),
            "fields": [{"name": name, "type": typed.schema} for name, typed in fields.items()],
        }
        return Typed(schema, st.fixed_dictionaries({name: typed.values for name, typed in fields.items()}))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Schema, list[Mapping[str, Any]]]:
    typed = Drawer(draw).record(3)
    return typed.schema, draw(st.lists(typed.values, max_size=5))


def cell(program: Program, batch: Batch, spec: ColumnSpec, row: int) -> Any:
    """One value of a batch as the reference would say it."""
    column = batch[spec.name]
    if not column.mask()[row]:
        return None
    if isinstance(column.values, Strings):
        start, length = int(column.values.starts[row]), int(column.values.lengths[row])
        raw = column.values.data[start : start + length].tobytes()
        if spec.kind == "opaque":
            return Subfield(avro_of(spec.node)).decode(raw)
        return raw.decode() if spec.kind == "string" else raw
    value = column.values[row].item()
    return program.symbols[spec.name][value] if spec.kind == "enum" else value


def expected(record: Mapping[str, Any], spec: ColumnSpec) -> Any:
    """What the reference has where a column's name points; for a presence column, whether it is there."""
    *outer, last = spec.name.split(".")
    holder: Any = record
    for name in outer:
        holder = None if holder is None else holder[name]
    if holder is None:
        return None
    return holder[last] is not None if spec.kind == "presence" else holder[last]


def same(ours: Any, theirs: Any) -> bool:
    """Equality under which NaN is NaN and -0.0 is not 0.0."""
    if isinstance(ours, float) and isinstance(theirs, float):
        return (ours != ours and theirs != theirs) or struct.pack("d", ours) == struct.pack("d", theirs)
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return type(ours) is type(theirs) and bool(ours == theirs)


def judged(reference: Reference, datum: bytes) -> tuple[str, dict[str, Any] | None]:
    try:
        return "ok", reference.decode(datum)
    except BadRecord as error:
        return error.reason, None


def assert_agrees(schema: Schema, data: list[bytes]) -> None:
    """Row by row: the same reason when both refuse, the same values when both accept, the same bytes back."""
    program, reference = compile_program(schema), Reference(schema)
    decoded = program.decode(Strings.of(data))
    for row, datum in enumerate(data):
        reason, record = judged(reference, datum)
        assert STATUS_REASONS[decoded.status[row]] == reason, datum
        if record is None:
            continue
        for spec in program.columns:
            assert same(cell(program, decoded.batch, spec, row), expected(record, spec)), (spec, datum)
    written = program.encode(decoded.batch.take(decoded.status == 0)).to_list()
    good = [datum for datum, status in zip(data, decoded.status, strict=True) if status == 0]
    for ours, theirs in zip(written, good, strict=True):
        assert same(reference.decode(ours), reference.decode(theirs))


@thorough
@given(cases())
def test_values_come_back_and_bytes_equal_fastavro(case: tuple[Schema, list[Mapping[str, Any]]]) -> None:
    schema, records = case
    reference, program = Reference(schema), compile_program(schema)
    data = [reference.encode(record) for record in records]
    assert_agrees(schema, data)
    decoded = program.decode(Strings.of(data))
    assert not decoded.status.any()
    assert program.encode(decoded.batch).to_list() == data
    assert program.encode(decoded.batch, b"\0pre").to_list() == [b"\0pre" + datum for datum in data]


# Least, greatest and endless numbers; -1 and -64; a padded zero; what is one bit too long.
NUMBERS = [
    b"\xff" * 9 + b"\x01",
    b"\xfe" + b"\xff" * 8 + b"\x01",
    b"\x80" * 11,
    b"\x01",
    b"\x7f",
    b"\x80\x00",
    b"\xff" * 9 + b"\x02",
    b"\x80\x80\x80\x80\x10",
]


@st.composite
def mangled(draw: st.DrawFn, datum: bytes) -> bytes:
    """The datum cut, stretched, patched, or nothing of it."""
    at = draw(st.integers(0, len(datum)))
    few = st.binary(min_size=1, max_size=12) | st.sampled_from(NUMBERS)
    match draw(st.sampled_from(["cut", "append", "insert", "patch", "flip", "random", "whole"])):
        case "cut":
            return datum[:at]
        case "append":
            return datum + draw(few)
        case "insert":
            return datum[:at] + draw(few) + datum[at:]
        case "patch":
            patch = draw(few)
            return datum[:at] + patch + datum[at + len(patch) :]
        case "flip" if at < len(datum):
            flipped = datum[at] ^ 1 << draw(st.integers(0, 7))
            return datum[:at] + bytes([flipped]) + datum[at + 1 :]
        case "random":
            return draw(st.binary(max_size=40))
    return datum


@st.composite
def hostile(draw: st.DrawFn) -> tuple[Schema, list[bytes]]:
    schema, records = draw(cases())
    reference = Reference(schema)
    data = [reference.encode(record) for record in records] or [b""]
    return schema, [draw(mangled(datum)) for datum in data for _ in range(4)] + data


@thorough
@given(hostile())
def test_hostile_bytes_are_judged_alike(case: tuple[Schema, list[bytes]]) -> None:
    assert_agrees(*case)
