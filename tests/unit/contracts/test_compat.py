"""Compatibility: named cases, and agreement with the avro package's own checker."""

import json
from typing import Any

import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.schema import parse
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.compat import compatibility_problems, obstacles
from shared.contracts.positions import Located, json_lines

TIME = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}


def record(*fields: Any, name: str = "R", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": "n", **more, "fields": list(fields)}


def f(name: str, avro: Any = "int", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": avro, **more}


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "E", "namespace": "n", "symbols": list(symbols), **more}


def fixed(size: int, name: str = "F") -> dict[str, Any]:
    return {"type": "fixed", "name": name, "namespace": "n", "size": size}


CASES: list[tuple[str, Any, Any, str | None]] = [
    ("same", record(f("x")), record(f("x")), None),
    ("field gone", record(), record(f("x")), None),
    ("field new", record(f("x")), record(), "field `x` is not in it and has no default"),
    ("field new with default", record(f("x", default=0)), record(), None),
    ("field renamed", record(f("y")), record(f("x")), "field `y` is not in it"),
    ("field renamed with alias", record(f("y", aliases=["x"])), record(f("x")), None),
    ("int to long", record(f("x", "long")), record(f("x", "int")), None),
    ("int to double", record(f("x", "double")), record(f("x", "int")), None),
    ("long to int", record(f("x", "int")), record(f("x", "long")), "long cannot be read as int"),
    ("double to float", record(f("x", "float")), record(f("x", "double")), "double cannot be read as float"),
    ("string to bytes", record(f("x", "bytes")), record(f("x", "string")), None),
    ("string to int", record(f("x", "int")), record(f("x", "string")), "string cannot be read as int"),
    ("made optional", record(f("x", ["null", "int"])), record(f("x", "int")), None),
    ("optional promoted", record(f("x", ["null", "long"])), record(f("x", "int")), None),
    (
        "no longer optional",
        record(f("x", "int")),
        record(f("x", ["null", "int"])),
        "null cannot be read as int",
    ),
    (
        "branch gone",
        record(f("x", ["null", "int"])),
        record(f("x", ["null", "int", "string"])),
        "no branch takes",
    ),
    ("symbol gone", enum("A"), enum("A", "B"), "symbols B are gone"),
    ("symbol gone with default", enum("A", default="A"), enum("A", "B"), None),
    ("symbol new", enum("A", "B"), enum("A"), None),
    ("fixed size", fixed(4), fixed(8), "size 8 became 4"),
    ("fixed name", fixed(4, "G"), fixed(4), "F was renamed to G"),
    ("record name", record(name="S"), record(), "R was renamed to S"),
    ("record alias", record(name="S", aliases=["R"]), record(), None),
    ("namespace", {**record(f("x")), "namespace": "m"}, record(f("x")), None),
    (
        "items",
        {"type": "array", "items": "int"},
        {"type": "array", "items": "string"},
        "string cannot be read",
    ),
    ("values", {"type": "map", "values": "long"}, {"type": "map", "values": "int"}, None),
    (
        "array to map",
        {"type": "map", "values": "int"},
        {"type": "array", "items": "int"},
        "array cannot be read",
    ),
    ("nested", record(f("x", record(f("y"), name="S"))), record(f("x", record(name="S"))), "field `y`"),
    (
        "in optional record",
        record(f("x", ["null", record(f("y"), name="S")])),
        record(f("x", ["null", record(name="S")])),
        "field `y`",
    ),
    (
        "by name",
        record(f("x", record(f("y"), name="S")), f("z", "S")),
        record(f("x", record(f("y"), name="S")), f("z", "n.S")),
        None,
    ),
    ("recursive", record(f("x", ["null", "R"])), record(f("x", ["null", "R"])), None),
    ("time unit", record(f("x", MICROS)), record(f("x", TIME)), "its meaning changed"),
    ("time lost", record(f("x", "long")), record(f("x", TIME)), "its meaning changed"),
]
OTHERWISE = {"time unit", "time lost", "record alias"}
"""We are stricter about logical types; the avro package does not look at a record's aliases."""


@pytest.mark.parametrize(("reader", "writer", "message"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_case(reader: Any, writer: Any, message: str | None) -> None:
    found = [obstacle.message for obstacle in obstacles(reader, writer)]
    assert [message in text for text in found] == [True] if message else not found, found


@pytest.mark.parametrize(
    ("reader", "writer"),
    [c[1:3] for c in CASES if c[0] not in OTHERWISE],
    ids=[c[0] for c in CASES if c[0] not in OTHERWISE],
)
def test_case_agrees_with_the_avro_package(reader: Any, writer: Any) -> None:
    assert (not obstacles(reader, writer)) == _avro_says(reader, writer)


PRIMITIVE = st.sampled_from(["boolean", "int", "long", "float", "double", "string", "bytes"])
SIMPLE = st.one_of(
    PRIMITIVE,
    st.lists(st.sampled_from(["A", "B", "C"]), min_size=1, max_size=3, unique=True).map(lambda s: enum(*s)),
    st.integers(1, 2).map(fixed),
    PRIMITIVE.map(lambda p: {"type": "array", "items": p}),
    PRIMITIVE.map(lambda p: {"type": "map", "values": p}),
)
TYPE = st.one_of(SIMPLE, PRIMITIVE.map(lambda p: ["null", p]))


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """A record of some of the fields a, b, c; named types appear once, as Avro wants."""
    fields = []
    named: set[str] = set()
    for name in draw(st.lists(st.sampled_from("abc"), unique=True, max_size=3)):
        avro = draw(TYPE)
        if isinstance(avro, dict) and "name" in avro:
            if avro["name"] in named:
                continue
            named.add(avro["name"])
        fields.append(f(name, ["null", "int"], default=None) if draw(st.booleans()) else f(name, avro))
    return record(*fields)


@given(records(), records())
def test_any_pair_agrees_with_the_avro_package(reader: dict[str, Any], writer: dict[str, Any]) -> None:
    assert (not obstacles(reader, writer)) == _avro_says(reader, writer)


@given(records())
def test_every_schema_reads_itself(schema: dict[str, Any]) -> None:
    assert obstacles(schema, schema) == []


def _avro_says(reader: Any, writer: Any) -> bool:
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    result = checker.get_compatibility(parse(json.dumps(reader)), parse(json.dumps(writer)))
    compatible: bool = result.compatibility is SchemaCompatibilityType.compatible
    return compatible


def test_problems_stand_at_the_new_files_lines_for_every_version() -> None:
    text = json.dumps(record(f("x"), f("y")), indent=1)
    new, at = json.loads(text), Located("r.avsc", json_lines(text))
    versions = [("version 1", record(f("x"))), ("version 2", record(f("x", "string"), f("y")))]
    found = compatibility_problems(new, at, versions, "BACKWARD_TRANSITIVE")
    lines = text.split("\n")
    assert [p.message for p in found] == [
        "cannot read data of version 1: field `y` is not in it and has no default",
        "cannot read data of version 2: string cannot be read as int",
    ]
    assert '"type": "int"' in lines[found[1].line - 1]
    assert lines[found[0].line].strip() == '"name": "y",'
    assert "default" in found[0].fix


def test_full_also_asks_whether_old_readers_can_read_the_new() -> None:
    new, old = record(), record(f("x"))
    at = Located("r.avsc", {})
    assert compatibility_problems(new, at, [("version 1", old)], "BACKWARD_TRANSITIVE") == []
    [found] = compatibility_problems(new, at, [("version 1", old)], "FULL_TRANSITIVE")
    assert found.message.startswith("readers of version 1 cannot read this: field `x`")
