"""Encoding takes batches from anywhere, and says which column and row it cannot write."""

from typing import Any

import numpy as np
import pytest

from shared.codec.batch import Batch, Column, Strings
from shared.codec.program import EncodeRefused, Program, compile_program
from shared.codec.reference import Reference
from tests.unit.codec.support import record

ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
FIXED = {"type": "fixed", "name": "F", "size": 3}
INNER = {"type": "record", "name": "I", "fields": [{"name": "y", "type": "long"}]}


def test_columns_from_different_buffers_equal_fastavro() -> None:
    schema = record(a="string", b="bytes", c=FIXED, d="float", e=["null", "int"], f=["long", "null"], g=ENUM)
    batch = Batch.of(
        {
            "extra": np.zeros(3),
            "a": Strings.of([b"", "é".encode(), b"x" * 100]),
            "b": Strings.of([b"0123456789", b"\xff", b"\x00" * 8]).take(np.array([2, 1, 0])),
            "c": Strings.repeated(b"abc", 3),
            "d": np.array([1, 2, 3], np.int32),
            "e": Column(np.array([7, 2**40, -7]), np.array([True, False, True])),
            "f": np.array([1, -1, 2**62])[::1],
            "g": np.array([0, 1, 0], np.int32),
        }
    )
    records: list[dict[str, Any]] = [
        {"a": "", "b": b"\x00" * 8, "c": b"abc", "d": 1.0, "e": 7, "f": 1, "g": "A"},
        {"a": "é", "b": b"\xff", "c": b"abc", "d": 2.0, "e": None, "f": -1, "g": "B"},
        {"a": "x" * 100, "b": b"0123456789", "c": b"abc", "d": 3.0, "e": -7, "f": 2**62, "g": "A"},
    ]
    reference = Reference(schema)
    expected = [b"\0\0\0\0\x07" + reference.encode(row) for row in records]
    encoded = compile_program(schema).encode(batch, b"\0\0\0\0\x07")
    assert encoded.to_list() == expected
    assert encoded.data.tobytes() == b"".join(expected)


def refused(program: Program, columns: dict[str, Any]) -> str:
    with pytest.raises(EncodeRefused) as caught:
        program.encode(Batch.of(columns))
    return str(caught.value)


def test_missing_columns_are_named() -> None:
    program = compile_program(record(a="long", b="string", c="double"))
    assert refused(program, {"b": Strings.of([b"x"])}) == "the batch lacks the columns a, c"


@pytest.mark.parametrize(
    ("kind", "column", "message"),
    [
        ("int", np.array([1, 2**31]), "column x, row 1: avro.range"),
        ("int", np.array([1, -(2**31) - 1]), "column x, row 1: avro.range"),
        (ENUM, np.array([1, 2]), "column x, row 1: avro.enum"),
        (ENUM, np.array([1, -1]), "column x, row 1: avro.enum"),
        ("string", Strings.of([b"a", b"\xff"]), "column x, row 1: avro.utf8"),
        (FIXED, Strings.of([b"abc", b"ab"]), "column x, row 1: avro.fixed"),
        ("long", Column(np.array([1, 2]), np.array([True, False])), "column x, row 1: avro.null"),
        ("long", np.array([1.0, 2.0]), "column x holds float64, the schema wants long"),
        ("long", np.array([1, 2], np.uint64), "column x holds uint64, the schema wants long"),
        ("boolean", np.array([0, 1]), "column x holds int64, the schema wants boolean"),
        ("double", np.array([True, False]), "column x holds bool, the schema wants double"),
        ("double", Strings.of([b"a", b"b"]), "column x holds texts, the schema wants double"),
        ("string", np.array([1, 2]), "column x holds int64, the schema wants string"),
        (
            "bytes",
            Strings(np.zeros(3, np.uint8), np.array([0, 2]), np.array([1, 2])),
            "column x, row 1: avro.view",
        ),
    ],
)
def test_what_cannot_be_written_is_named(kind: Any, column: Any, message: str) -> None:
    assert refused(compile_program(record(x=kind)), {"x": column}) == message


def test_columns_of_another_length_are_refused() -> None:
    program = compile_program(record(x="long"))
    with pytest.raises(EncodeRefused, match="column x has 1 rows, the batch 2"):
        program.encode(Batch({"x": Column(np.array([1]))}, 2))


def test_a_present_record_needs_its_fields() -> None:
    program = compile_program(record(r=["null", INNER]))
    nulls = Column(np.array([1, 2]), np.array([True, False]))
    absent = Batch.of({"r": np.array([True, False]), "r.y": nulls})
    assert program.encode(absent).to_list() == [b"\x02\x02", b"\x00"]
    present = Batch.of({"r": np.array([True, True]), "r.y": nulls})
    with pytest.raises(EncodeRefused, match=r"column r\.y, row 1: avro\.null"):
        program.encode(present)


def test_what_a_null_hides_is_not_looked_at() -> None:
    program = compile_program(record(x=["null", "string"]))
    outside = Strings(np.zeros(2, np.uint8), np.array([0, 99]), np.array([1, 2**62]))
    batch = Batch.of({"x": Column(outside, np.array([True, False]))})
    assert program.encode(batch).to_list() == [b"\x02\x02\x00", b"\x00"]
