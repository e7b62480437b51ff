"""The lint: each rule has a schema that breaks it and nothing else."""

import json
from typing import Any

import fastavro
import pytest

from shared.contracts.lint import lint_text

GOOD: dict[str, Any] = {
    "type": "record",
    "name": "Thing",
    "namespace": "example",
    "doc": "A thing.",
    "fields": [{"name": "id", "type": "string", "doc": "Its id."}],
}


def text_with(*fields: Any) -> str:
    """A schema whose further fields stand on the lines 8, 9 and so on."""
    lines = [json.dumps(field) for field in ({"name": "id", "type": "string", "doc": "Its id."}, *fields)]
    head = (
        '{"type": "record",\n "name": "Thing",\n "namespace": "example",\n "doc": "A thing.",\n'
        '\n "fields": [\n'
    )
    return head + ",\n".join(lines) + "]}"


def field(avro: Any) -> dict[str, Any]:
    return {"name": "x", "type": avro, "doc": "An x."}


def record(name: str, *fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "doc": "One.", "fields": list(fields)}


EMPTY = record("Empty")
BAD: list[tuple[str, Any, str, str]] = [
    ("field name", {"name": "x y", "type": "int", "doc": "An x."}, "'x y' cannot name a field", "letters"),
    ("type name", field(record("1st")), "'example.1st' cannot name a type", "letters"),
    ("enum name", field({"type": "enum", "name": "E F", "symbols": ["A"]}), "cannot name a type", "letters"),
    ("union twice", field(["int", "int"]), "twice in one union", "keep one"),
    ("union twice named", field([EMPTY, "Empty"]), "twice in one union", "keep one"),
    (
        "union two arrays",
        field([{"type": "array", "items": "int"}, {"type": "array", "items": "long"}]),
        "twice",
        "one",
    ),
    ("default text", {**field("int"), "default": "a"}, "default of `x`", "a value of its type"),
    ("default true", {**field("int"), "default": True}, "default of `x`", "a value of its type"),
    ("default too large", {**field("int"), "default": 2**31}, "default of `x`", "a value of its type"),
    ("default of 2nd branch", {**field(["null", "int"]), "default": 3}, "default of `x`", "first branch"),
    (
        "default symbol",
        {**field({"type": "enum", "name": "E", "symbols": ["A"]}), "default": "B"},
        "default",
        "value",
    ),
    (
        "default item",
        {**field({"type": "array", "items": "int"}), "default": ["a"]},
        "default of `x`",
        "value",
    ),
    (
        "default value",
        {**field({"type": "map", "values": "int"}), "default": {"a": None}},
        "default of `x`",
        "value",
    ),
    (
        "default fixed",
        {**field({"type": "fixed", "name": "F", "size": 2}), "default": "a"},
        "default of `x`",
        "value",
    ),
    (
        "default record",
        {**field(record("In", {"name": "y", "type": "int", "doc": "A y."})), "default": {}},
        "def",
        "",
    ),
    ("no doc", {"name": "x", "type": "int"}, "field `x` has no doc", '"doc": "what it means'),
    ("blank doc", {"name": "x", "type": "int", "doc": " "}, "field `x` has no doc", '"doc"'),
    ("inner doc", field(record("In", {"name": "y", "type": "int"})), "field `y` has no doc", '"doc"'),
    ("no type", {"name": "x", "doc": "An x."}, "a name and a type", '"type"'),
    ("no name", {"type": "int", "doc": "An x."}, "a name and a type", '"name"'),
    ("not a field", "x", "a name and a type", '"name"'),
    ("twice", {"name": "id", "type": "int", "doc": "An x."}, "declared twice", "rename"),
    ("recursive", field(["null", "Thing"]), "recursive type example.Thing", "hold an id"),
    ("recursive full", field(["null", "example.Thing"]), "recursive type example.Thing", "hold an id"),
    ("recursive array", field({"type": "array", "items": "Thing"}), "recursive type", "hold an id"),
    ("recursive map", field({"type": "map", "values": ["null", "Thing"]}), "recursive type", "hold an id"),
    (
        "recursive deep",
        field(record("A", field(record("B", field(["null", "A"]))))),
        "recursive type example.A",
        "id",
    ),
    (
        "array of null",
        field({"type": "array", "items": "null"}),
        "array items that take no bytes",
        "count them",
    ),
    (
        "array of wrapped null",
        field({"type": "array", "items": {"type": "null"}}),
        "take no bytes",
        "count them",
    ),
    ("array of empty", field({"type": "array", "items": EMPTY}), "take no bytes", "count them"),
    (
        "array of nested empty",
        field({"type": "array", "items": record("Outer", field(EMPTY))}),
        "take no bytes",
        "count them",
    ),
    (
        "array of fixed 0",
        field({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}),
        "take no bytes",
        "count them",
    ),
    (
        "map of null",
        field({"type": "map", "values": "null"}),
        "map values that take no bytes",
        "array of the keys",
    ),
    ("array without items", field({"type": "array"}), "array without items", '"items"'),
    ("map without values", field({"type": "map"}), "map without values", '"values"'),
    ("unknown type", field("strin"), "unknown type", "define it"),
    ("unknown in union", field(["null", "Other"]), "unknown type", "define it"),
    ("number as type", field(3), "3 is not a type", "string"),
    ("empty type", field({}), "a type is missing", '"type"'),
    ("empty union", field([]), "union without branches", "null"),
    ("nested union", field(["null", ["int"]]), "union inside a union", "one list"),
    ("record without fields", field({"type": "record", "name": "R"}), "a name and fields", "fields"),
    (
        "enum without symbols",
        field({"type": "enum", "name": "E", "symbols": []}),
        "enum needs symbols",
        "symbols",
    ),
    ("fixed without size", field({"type": "fixed", "name": "F"}), "needs a size", "size"),
    (
        "time on int",
        field({"type": "int", "logicalType": "timestamp-millis"}),
        "timestamp-millis on 'int'",
        '"long"',
    ),
    (
        "decimal on string",
        field({"type": "string", "logicalType": "decimal"}),
        "decimal on 'string'",
        '"bytes"',
    ),
]


@pytest.mark.parametrize(("avro", "message", "fix"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_field_is_told_at_its_line(avro: Any, message: str, fix: str) -> None:
    text = text_with({"name": "before", "type": "int", "doc": "Fine."}, avro)
    found = lint_text(text, "thing.avsc")
    assert [(p.file, p.line) for p in found] == [("thing.avsc", 9)], [str(p) for p in found]
    assert message in found[0].message
    assert fix in found[0].fix


DEEP: Any = "int"
for _ in range(200):
    DEEP = {"type": "array", "items": DEEP}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("string", "not a record"),
        ([], "not a record"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, "not a record"),
        ({**GOOD, "doc": ""}, "the record has no doc"),
        ({key: value for key, value in GOOD.items() if key != "namespace"}, "no namespace"),
        ({**GOOD, "name": "a thing"}, "cannot name a type"),
        ({**GOOD, "fields": [field(DEEP)]}, "nested more than"),
        ({**GOOD, "fields": None}, "a name and fields"),
    ],
)
def test_a_bad_schema_is_told(schema: Any, message: str) -> None:
    found = lint_text(json.dumps(schema), "thing.avsc")
    assert any(message in p.message for p in found), [str(p) for p in found]


@pytest.mark.parametrize(
    "avro",
    [
        "int",
        ["null", "string"],
        [{"type": "array", "items": "int"}, {"type": "map", "values": "int"}, "null"],
        {"type": "array", "items": ["null", "int"]},
        {"type": "map", "values": "string"},
        {"type": "enum", "name": "E", "symbols": ["A", "B"], "default": "A"},
        {"type": "fixed", "name": "F", "size": 16},
        {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        {"type": "string", "logicalType": "uuid"},
        {"type": "int", "logicalType": "date"},
        record("Inner", field("double")),
        EMPTY,
    ],
)
def test_what_is_right_passes(avro: Any) -> None:
    text = text_with(field(avro))
    assert lint_text(text, "thing.avsc") == []
    fastavro.parse_schema(json.loads(text))


def test_a_type_may_be_used_twice() -> None:
    point = {"name": "a", "type": record("Point", field("int")), "doc": "One."}
    assert lint_text(text_with(point, {"name": "b", "type": "Point", "doc": "Two."}), "thing.avsc") == []


@pytest.mark.parametrize(
    ("avro", "default"),
    [
        ("int", -(2**31)),
        ("double", 1),
        ("bytes", "\u00ff"),
        (["null", "int"], None),
        (["int", "null"], 3),
        ({"type": "array", "items": "string"}, ["a"]),
        ({"type": "map", "values": "long"}, {"a": 1}),
        ({"type": "fixed", "name": "F", "size": 2}, "ab"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, "A"),
        ({"type": "long", "logicalType": "timestamp-millis"}, 0),
        (record("In", {"name": "y", "type": "int", "doc": "A y.", "default": 1}), {}),
    ],
)
def test_right_defaults_pass(avro: Any, default: Any) -> None:
    assert lint_text(text_with({**field(avro), "default": default}), "thing.avsc") == []


def test_lint_does_not_change_what_it_reads() -> None:
    text = text_with(field("int"))
    assert lint_text(text, "a") == lint_text(text, "a") == []
