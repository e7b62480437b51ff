"""Reading with another version of the schema gives what the reference gives, row by row."""

from typing import Any

import numpy as np
import pytest

from shared.codec.batch import Batch, Strings
from shared.codec.layout import ColumnSpec
from shared.codec.ops import STATUS_REASONS
from shared.codec.program import Program
from shared.codec.reference import Reference
from shared.codec.resolve import resolve_program
from shared.codec.schema import SchemaRefused
from tests.unit.codec.support import reasons, record

ENUM_AB = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
ENUM_BCA = {"type": "enum", "name": "E", "symbols": ["B", "C", "A"], "default": "C"}
ENUM_B = {"type": "enum", "name": "E", "symbols": ["B"]}
LONGS = {"type": "array", "items": "long"}
INTS = {"type": "array", "items": "int"}
INNER = {"type": "record", "name": "I", "fields": [{"name": "y", "type": "int"}]}
WIDER = {
    "type": "record",
    "name": "I",
    "fields": [
        {"name": "z", "type": "string", "default": "zz"},
        {"name": "y", "type": "double"},
        {"name": "n", "type": ["null", "long"], "default": None},
    ],
}


def values(program: Program, batch: Batch, spec: ColumnSpec) -> list[Any]:
    column = batch[spec.name]
    if isinstance(column.values, Strings):
        raw: list[Any] = column.values.to_list()
        plain = [text.decode() for text in raw] if spec.kind == "string" else raw
    elif spec.kind == "enum":
        plain = [program.symbols[spec.name][index] for index in column.array.tolist()]
    else:
        plain = column.array.tolist()
    return [value if good else None for value, good in zip(plain, column.mask(), strict=True)]


SAME = [
    ("int", "long", [1, -5]),
    ("int", "float", [1, 2**24]),
    ("int", "double", [1, -5]),
    ("long", "float", [1, 2**62]),
    ("long", "double", [1, 2**62]),
    ("float", "double", [1.5, -0.1]),
    ("string", "bytes", ["é"]),
    ("bytes", "string", ["é".encode()]),
    ("long", ["null", "long"], [7]),
    (["null", "int"], ["double", "null"], [7, None]),
    (["long", "null"], ["null", "long"], [7, None]),
    (["int", "string", "null"], ["null", "long"], [7, None]),
    (["null", "long"], "long", [7]),
    ("null", ["null", "long"], [None]),
    (ENUM_AB, ENUM_BCA, ["A", "B"]),
    (ENUM_AB, ENUM_B, ["B"]),
]


@pytest.mark.parametrize(("theirs", "ours", "given"), SAME)
def test_types_resolve_as_the_reference_does(theirs: Any, ours: Any, given: list[Any]) -> None:
    writer, reader = record(a="long", x=theirs, b="long"), record(b="long", x=ours)
    reference = Reference(writer, reader)
    program = resolve_program(writer, reader)
    data = [reference.encode({"a": 1, "x": value, "b": 2}) for value in given]
    decoded = program.decode(Strings.of(data))
    assert not decoded.status.any()
    expected = [reference.decode(datum) for datum in data]
    for spec in program.columns:
        assert values(program, decoded.batch, spec) == [row[spec.name] for row in expected]


def test_unknown_fields_are_dropped_and_missing_ones_filled() -> None:
    writer = record(gone=LONGS, also=["null", ENUM_AB], r=["null", INNER], kept="int")
    reader = record(
        kept="double",
        r=["null", WIDER],
        long=("long", -7),
        text=("string", "né"),
        raw=("bytes", "\u00ff"),
        flag=("boolean", True),
        real=("float", 0.5),
        grade=({"type": "enum", "name": "G", "symbols": ["lo", "hi"]}, "hi"),
        maybe=(["null", "long"], None),
        surely=(["long", "null"], 3),
        several=({"type": "array", "items": "string"}, []),
        inner=({"type": "record", "name": "J", "fields": [{"name": "k", "type": "int"}]}, {"k": 4}),
    )
    reference, program = Reference(writer, reader), resolve_program(writer, reader)
    rows: list[dict[str, Any]] = [
        {"gone": [1, 2], "also": "B", "r": None, "kept": 5},
        {"gone": [], "also": None, "r": {"y": 8}, "kept": 6},
    ]
    data = [reference.encode(row) for row in rows]
    decoded = program.decode(Strings.of(data))
    assert not decoded.status.any()
    again = [Reference(reader).decode(datum) for datum in program.encode(decoded.batch).to_list()]
    # fastavro hands on a bytes default as the text that the schema has.
    assert again == [{**reference.decode(datum), "raw": b"\xff"} for datum in data]
    assert again[1]["r"] == {"z": "zz", "y": 8.0, "n": None}


def test_a_field_is_found_by_its_alias() -> None:
    reader = record(new="long")
    reader["fields"][0]["aliases"] = ["old"]
    program = resolve_program(record(old="long"), reader)
    assert program.decode(Strings.of([b"\x0e"])).batch["new"].array.tolist() == [7]


@pytest.mark.parametrize(
    ("theirs", "ours", "datum", "reason"),
    [
        (["null", "long"], "long", b"\x00", "avro.union"),
        (["string", "long"], "long", b"\x00\x02a", "avro.union"),
        (["string", "long"], "long", b"\x04", "avro.union"),
        (ENUM_AB, ENUM_B, b"\x00", "avro.enum"),
        (ENUM_AB, ENUM_BCA, b"\x04", "avro.enum"),
        (ENUM_AB, ENUM_BCA, b"\x01", "avro.enum"),
        (["long", ENUM_AB], ENUM_BCA, b"\x02\x01", "avro.enum"),
        ("bytes", "string", b"\x02\xff", "avro.utf8"),
        ("int", "double", b"\x80\x80\x80\x80\x10", "avro.range"),
        ("int", "long", b"\x80\x80\x80\x80\x10", "avro.range"),
        ("string", "bytes", b"\x02\xff", "avro.utf8"),
    ],
)
def test_what_depends_on_the_datum_is_its_status(theirs: Any, ours: Any, datum: bytes, reason: str) -> None:
    assert reasons(resolve_program(record(x=theirs), record(x=ours)), [datum]) == [reason]


def test_dropped_fields_are_still_checked() -> None:
    program = resolve_program(record(gone="string", x="long"), record(x="long"))
    assert reasons(program, [b"\x02a\x02", b"\x02\xff\x02", b"\x09\x02"]) == [
        "ok",
        "avro.utf8",
        "avro.length",
    ]


@pytest.mark.parametrize(
    ("writer", "reader", "message"),
    [
        (record(), record(x="long"), "x: the writer does not have it"),
        (record(x="string"), record(x="long"), "x: written as string, read as long"),
        (record(x="long"), record(x="int"), "x: written as long, read as int"),
        (record(x="double"), record(x="float"), "x: written as double, read as float"),
        (record(x=["string", "bytes"]), record(x="long"), "x: written as string, read as long"),
        (record(x=LONGS), record(x=INTS), "x: array is kept as it was written"),
        (record(x="long"), record(x=["null", "string"]), "x: written as long, read as string"),
        (record(x=INNER), record(x="long"), "x: written as record, read as long"),
        (record(x="long"), record(x=INNER), "x: written as long, read as record"),
        (record(), record(x=("long", "no")), "x: 'no' is no default for long"),
        (record(), record(x=(LONGS, [1])), "x: the default of array can be empty"),
        (
            record(x={"type": "fixed", "name": "F", "size": 2}),
            record(x={"type": "fixed", "name": "F", "size": 3}),
            "x: written as fixed of 2, read as fixed of 3",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(writer: Any, reader: Any, message: str) -> None:
    with pytest.raises(SchemaRefused, match=message):
        resolve_program(writer, reader)


def test_every_problem_is_listed() -> None:
    with pytest.raises(SchemaRefused) as caught:
        resolve_program(record(a="string", b="string"), record(a="long", b="long", c="long"))
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["a", "b", "c"]


def test_arrays_of_ints_read_as_arrays_of_longs() -> None:
    program = resolve_program(record(x=INTS), record(x=LONGS))
    decoded = program.decode(Strings.of([b"\x02\x0e\x00"]))
    assert STATUS_REASONS[decoded.status[0]] == "ok"
    assert decoded.batch["x"].strings.to_list() == [b"\x02\x0e\x00"]


def test_what_is_read_as_a_float_has_its_precision() -> None:
    """fastavro keeps all digits of an int or a default; a float of 32 bits cannot."""
    program = resolve_program(record(x="int"), record(x="float", y=("float", 0.1)))
    batch = program.decode(Strings.of([b"\x82\x80\x80\x10"])).batch
    assert (batch["x"].array[0], batch["y"].array[0]) == (2.0**24, float(np.float32(0.1)))
