"""Records flatten to columns: their names, kinds and masks."""

import numpy as np

from shared.codec.batch import Strings
from shared.codec.program import compile_program
from shared.codec.reference import Reference
from tests.unit.codec.support import record

INNER = {"type": "record", "name": "Inner", "fields": [{"name": "x", "type": "long"}]}
LABEL = {
    "type": "record",
    "name": "Label",
    "fields": [
        {"name": "value", "type": "double"},
        {"name": "note", "type": ["string", "null"]},
        {"name": "inner", "type": ["null", INNER]},
    ],
}
SCHEMA = record(
    id="string",
    at={"type": "long", "logicalType": "timestamp-millis"},
    grade={"type": "enum", "name": "Grade", "symbols": ["low", "high"]},
    label=["null", LABEL],
    tags=["null", {"type": "array", "items": "string"}],
)
ABSENT = {"id": "a", "at": 5, "grade": "high", "label": None, "tags": None}
PRESENT = {
    "id": "b",
    "at": 6,
    "grade": "low",
    "label": {"value": 1.5, "note": None, "inner": {"x": 9}},
    "tags": ["t"],
}


def test_names_and_kinds() -> None:
    program = compile_program(SCHEMA)
    assert [(spec.name, spec.kind) for spec in program.columns] == [
        ("id", "string"),
        ("at", "long"),
        ("grade", "enum"),
        ("label", "presence"),
        ("label.value", "double"),
        ("label.note", "string"),
        ("label.inner", "presence"),
        ("label.inner.x", "long"),
        ("tags", "opaque"),
    ]
    assert program.symbols == {"grade": ("low", "high")}


def test_absent_records_take_their_fields_with_them() -> None:
    reference, program = Reference(SCHEMA), compile_program(SCHEMA)
    data = [reference.encode(ABSENT), reference.encode(PRESENT)]
    batch = program.decode(Strings.of(data)).batch
    assert batch["id"].strings.to_list() == [b"a", b"b"]
    assert batch["id"].valid is None
    assert batch["at"].array.tolist() == [5, 6]
    assert batch["grade"].array.tolist() == [1, 0]
    assert (batch["grade"].array.dtype.str, batch["at"].array.dtype.str) == ("<i4", "<i8")
    assert batch["label"].array.tolist() == [False, True]
    assert batch["label.value"].mask().tolist() == [False, True]
    assert batch["label.value"].array[1] == 1.5
    assert batch["label.note"].mask().tolist() == [False, False]
    assert batch["label.inner"].array.tolist() == [False, True]
    assert batch["label.inner.x"].array.tolist() == [0, 9]
    assert batch["tags"].mask().tolist() == [False, True]
    assert program.encode(batch).to_list() == data


def test_texts_are_views_of_the_input() -> None:
    rows = Strings.of([b"\x04ab", b"\x02c"])
    column = compile_program(record(x="string")).decode(rows).batch["x"].strings
    assert column.data is rows.data
    assert column.starts.tolist() == [1, 4]


def test_rows_may_lie_anywhere() -> None:
    """Strided, reversed and read-only views decode as copies do."""
    program = compile_program(record(x="string"))
    rows = Strings.of([b"\x04ab", b"\x02c", b"\x00", b"\x02d"])
    reversed_rows = Strings(rows.data, rows.starts[::-1], rows.lengths[::-1])
    batch = program.decode(reversed_rows).batch
    assert batch["x"].strings.to_list() == [b"d", b"", b"c", b"ab"]
    odd = program.encode(batch.take(np.array([3, 1])))
    assert odd.to_list() == [b"\x04ab", b"\x00"]
