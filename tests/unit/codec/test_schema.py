"""Schemas that could make a reader run away are refused, with the place."""

from typing import Any

import pytest

from shared.codec.program import compile_program
from shared.codec.reference import Reference
from shared.codec.schema import SchemaRefused
from tests.unit.codec.support import record

LIST = {
    "type": "record",
    "name": "Link",
    "fields": [{"name": "next", "type": ["null", "Link"]}],
}
EMPTY = {"type": "record", "name": "Empty", "fields": [{"name": "n", "type": "null"}]}


def doubling(times: int) -> dict[str, Any]:
    """A short schema whose tree doubles with each name."""
    fields: list[dict[str, Any]] = [
        {"name": "f0", "type": {"type": "record", "name": "N0", "fields": [{"name": "x", "type": "long"}]}}
    ]
    for i in range(1, times):
        twice = [{"name": name, "type": f"N{i - 1}"} for name in "ab"]
        fields.append({"name": f"f{i}", "type": {"type": "record", "name": f"N{i}", "fields": twice}})
    return {"type": "record", "name": "R", "fields": fields}


def nested(levels: int) -> Any:
    schema: Any = "long"
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (record(x=LIST), "x.next: Link contains itself"),
        (record(x={"type": "array", "items": "null"}), "x: array items that take no bytes"),
        (record(x={"type": "array", "items": EMPTY}), "x: array items that take no bytes"),
        (record(x={"type": "map", "values": {"type": "array", "items": "null"}}), r"x\{\}: array items"),
        (record(x="Unknown"), "x: unknown type 'Unknown'"),
        (record(x=7), "x: a type is a name"),
        (record(x=["null", ["null", "long"]]), "x: a union has branches"),
        (record(x=["null", "null"]), "x: a union has null once"),
        (record(x=[]), "x: a union has branches"),
        (record(x={"type": "enum", "name": "E", "symbols": []}), "x: an enum has a list"),
        (record(x={"type": "fixed", "name": "F", "size": -1}), "x: a fixed has a size"),
        (record(x={"type": "fixed", "size": 1}), "x: a fixed has a name"),
        (record(**{"a b": "long"}), "a field has a name of letters"),
        ("long", "a contract is a record"),
        ({"type": "record", "name": "R"}, "a record has a list of fields"),
        (record(x=nested(70)), "more than 64 levels deep"),
        (doubling(20), "more than 10000 types"),
    ],
)
def test_refused(schema: Any, message: str) -> None:
    with pytest.raises(SchemaRefused, match=message):
        compile_program(schema)
    with pytest.raises(SchemaRefused, match=message):
        Reference(schema)


def test_names_are_found_in_their_namespace() -> None:
    inner = {"type": "enum", "name": "E", "symbols": ["A"]}
    schema = {**record(x=inner, y="E", z="n.E", w={"type": "fixed", "name": "o.F", "size": 1}, v="o.F")}
    program = compile_program({**schema, "namespace": "n"})
    assert [spec.kind for spec in program.columns] == ["enum", "enum", "enum", "fixed", "fixed"]


def test_a_name_of_another_namespace_is_unknown() -> None:
    fixed = {"type": "fixed", "name": "o.F", "size": 1}
    with pytest.raises(SchemaRefused, match="v: unknown type 'F'"):
        compile_program({**record(w=fixed, v="F"), "namespace": "n"})
