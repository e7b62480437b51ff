"""The slow codec that says what is right: fastavro for the values, a plain walk for what it lets pass.

fastavro takes trailing bytes, endless varints, negative enum and union indexes, ints of 40 bits and booleans
of 7. So each datum is first walked by its schema, byte for byte, with the reasons that the fast path gives.
Logical types stay numbers and bytes here too.
"""

import io
from collections.abc import Mapping
from typing import Any, cast

import fastavro

from shared.codec.ops import MOST_LENGTH
from shared.codec.schema import Field, Node, Schema, parse_schema
from shared.errors import BadRecord

_VARINT_BYTES = 10


class Reference:
    """One schema, or a writer's and a reader's, one record at a time.

    >>> reference = Reference({"type": "record", "name": "R", "fields": [{"name": "x", "type": "long"}]})
    >>> reference.decode(reference.encode({"x": -3}))
    {'x': -3}
    """

    def __init__(self, writer: Schema, reader: Schema | None = None) -> None:
        self._node = parse_schema(writer)
        self._writer = fastavro.parse_schema(avro_of(self._node))
        self._reader = None if reader is None else fastavro.parse_schema(avro_of(parse_schema(reader)))

    def decode(self, datum: bytes) -> dict[str, Any]:
        """The record; BadRecord with the fast path's reason when the bytes are not exactly one datum."""
        check_datum(self._node, datum)
        return cast(dict[str, Any], _read(datum, self._writer, self._reader))

    def encode(self, record: Mapping[str, Any]) -> bytes:
        """The writer's datum; BadRecord when fastavro would write what `decode` refuses."""
        datum = _write(record, self._writer)
        check_datum(self._node, datum)
        return datum


class Subfield:
    """Values of one field that columns keep as bytes: an array, a map or a union of many.

    >>> headers = Subfield({"type": "array", "items": "string"})
    >>> headers.decode(headers.encode(["a", "b"]))
    ['a', 'b']
    """

    def __init__(self, schema: Any) -> None:
        fields = [{"name": "value", "type": schema}]
        self._node = parse_schema({"type": "record", "name": "Subfield", "fields": fields})
        self._schema = fastavro.parse_schema(avro_of(self._node))

    def decode(self, datum: bytes) -> Any:
        """The value; BadRecord when the bytes are not exactly one."""
        check_datum(self._node, datum)
        return _read(datum, self._schema, None)["value"]

    def encode(self, value: Any) -> bytes:
        """The value's bytes, as a column keeps them."""
        return _write({"value": value}, self._schema)


def _read(datum: bytes, writer: Any, reader: Any) -> Any:
    return fastavro.schemaless_reader(io.BytesIO(datum), writer, reader)


def _write(record: Mapping[str, Any], schema: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    return out.getvalue()


def avro_of(node: Node) -> Any:
    """The tree as Avro JSON again: names in full, no logical types, no docs."""
    return _spelled(node, set())


def _spelled(node: Node, known: set[str]) -> Any:
    if node.name:
        if node.name in known:
            return node.name
        known.add(node.name)
    match node.kind:
        case "record":
            return {
                "type": "record",
                "name": node.name,
                "fields": [_spelled_field(field, known) for field in node.fields],
            }
        case "enum":
            spelled = {"type": "enum", "name": node.name, "symbols": list(node.symbols)}
            return spelled if node.default_symbol is None else {**spelled, "default": node.default_symbol}
        case "fixed":
            return {"type": "fixed", "name": node.name, "size": node.size}
        case "array":
            return {"type": "array", "items": _spelled(cast(Node, node.items), known)}
        case "map":
            return {"type": "map", "values": _spelled(cast(Node, node.items), known)}
        case "union":
            return [_spelled(branch, known) for branch in node.branches]
    return node.kind


def _spelled_field(field: Field, known: set[str]) -> dict[str, Any]:
    spelled = {"name": field.name, "type": _spelled(field.node, known), "aliases": list(field.aliases)}
    return {**spelled, "default": field.default} if field.has_default else spelled


def check_datum(node: Node, datum: bytes) -> None:
    """BadRecord unless `datum` is exactly one well-formed value of `node`."""
    walk = _Walk(datum)
    walk.value(node)
    if walk.at != len(datum):
        raise BadRecord("avro.trailing", f"{len(datum) - walk.at} bytes behind the datum")


class _Walk:
    """A position in a datum that moves on by one value at a time."""

    def __init__(self, datum: bytes) -> None:
        self.datum = datum
        self.at = 0

    def value(self, node: Node) -> None:
        """Pass one value of `node`."""
        match node.kind:
            case "record":
                for field in node.fields:
                    self.value(field.node)
            case "union":
                self.value(node.branches[self.index(len(node.branches), "avro.union")])
            case "array" | "map":
                self.blocks(node)
            case _:
                self.scalar(node)

    def scalar(self, node: Node) -> None:
        """Pass one value that holds no others."""
        match node.kind:
            case "boolean":
                if self.take(1)[0] > 1:
                    raise BadRecord("avro.boolean", f"neither 0 nor 1 at {self.at - 1}")
            case "int":
                if not -(2**31) <= self.number() < 2**31:
                    raise BadRecord("avro.range", f"an int beyond 32 bits ends at {self.at}")
            case "long":
                self.number()
            case "float" | "double" | "fixed":
                self.take({"float": 4, "double": 8}.get(node.kind, node.size))
            case "string":
                self.text()
            case "bytes":
                self.take(self.length(self.number()))
            case "enum":
                self.index(len(node.symbols), "avro.enum")

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > len(self.datum) - self.at:
            raise BadRecord("avro.eof", f"{count} bytes are wanted at {self.at}, the datum ends before")
        self.at += count
        return self.datum[self.at - count : self.at]

    def number(self) -> int:
        """The next zigzag varint."""
        total = 0
        for place in range(_VARINT_BYTES):
            byte = self.take(1)[0]
            total |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                break
        else:
            raise BadRecord("avro.varint", f"a number of more than {_VARINT_BYTES} bytes ends at {self.at}")
        if total >= 2**64:
            raise BadRecord("avro.varint", f"a number of more than 64 bits ends at {self.at}")
        return total >> 1 ^ -(total & 1)

    def length(self, count: int) -> int:
        """`count` again when the rest can hold as many bytes or items."""
        if not 0 <= count <= MOST_LENGTH:
            raise BadRecord("avro.length", f"an impossible length of {count} at {self.at}")
        if count > len(self.datum) - self.at:
            raise BadRecord("avro.eof", f"a length of {count} at {self.at} is more than what is left")
        return count

    def text(self) -> None:
        """Pass a string."""
        text = self.take(self.length(self.number()))
        try:
            text.decode()
        except UnicodeDecodeError as error:
            raise BadRecord("avro.utf8", f"not UTF-8 before {self.at}: {error.reason}") from error

    def index(self, count: int, reason: str) -> int:
        """The next number as an index below `count`."""
        number = self.number()
        if not 0 <= number < count:
            raise BadRecord(reason, f"{number} at {self.at} is none of 0..{count - 1}")
        return number

    def blocks(self, node: Node) -> None:
        """Pass an array or a map: blocks of items up to an empty one."""
        while count := self.number():
            claimed = None
            if count < 0:
                # In 64 bits the least number has no opposite.
                count = -count if count > -(2**63) else count
                size = self.length(self.number())
                claimed = self.at + size
            for _ in range(self.length(count)):
                if node.kind == "map":
                    self.text()
                self.value(cast(Node, node.items))
            if claimed is not None and claimed != self.at:
                raise BadRecord("avro.length", f"a block ends at {self.at} and not, as it says, at {claimed}")
