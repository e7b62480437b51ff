"""What the fields of an Avro record are to a pipeline: a number, a time, a text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.contracts.expressions import Kind

_KINDS: Mapping[str, Kind] = {
    "boolean": "boolean",
    "int": "number",
    "long": "number",
    "float": "number",
    "double": "number",
    "string": "string",
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its kind, whether it can be null or has a default, and its Avro type without null."""

    name: str
    kind: Kind
    nullable: bool
    has_default: bool
    avro: Any


def fields_of(record: Mapping[str, Any]) -> dict[str, Field]:
    """The top-level fields of a valid record schema, in order.

    >>> fields_of({"fields": [{"name": "x", "type": ["null", "int"]}]})["x"].nullable
    True
    """
    return {declared["name"]: _field(declared) for declared in record["fields"]}


def _field(declared: Mapping[str, Any]) -> Field:
    avro = declared["type"]
    nullable = isinstance(avro, list) and "null" in avro
    if isinstance(avro, list):
        others = [branch for branch in avro if branch != "null"]
        avro = others[0] if len(others) == 1 else others
    return Field(declared["name"], _kind(avro), nullable, "default" in declared, avro)


def _kind(avro: Any) -> Kind:
    if isinstance(avro, str):
        return _KINDS.get(avro, "other")
    if isinstance(avro, dict):
        if avro.get("logicalType") == "timestamp-millis" and avro.get("type") == "long":
            return "time"
        if isinstance(avro.get("type"), str):
            return _KINDS.get(avro["type"], "other")
    return "other"
