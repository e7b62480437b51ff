"""Avro schemas as trees: names resolved, and refused where a datum could make a reader run away.

Refused are recursive types (a few kilobytes nest deep enough to kill a process), arrays whose items take no
bytes (seven bytes claim 2**40 items) and schemas beyond `MOST_NODES` types or `MOST_DEPTH` levels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shared.errors import Refused

Schema = Mapping[str, Any]
PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "string", "bytes"})
MOST_NODES = 10_000
MOST_DEPTH = 64
_MOST_SYMBOLS = 100_000


class SchemaRefused(Refused):
    """A schema that the codec does not take, or two that do not go together; every reason is listed."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Node:
    """One type of a schema; only what its `kind` has is filled."""

    kind: str
    name: str = ""
    fields: "tuple[Field, ...]" = ()
    items: "Node | None" = None
    branches: "tuple[Node, ...]" = ()
    symbols: tuple[str, ...] = ()
    default_symbol: str | None = None
    size: int = 0

    @property
    def nullable(self) -> "Node | None":
        """X of a union of null and X in either order, else None."""
        if len(self.branches) != 2 or "null" not in (self.branches[0].kind, self.branches[1].kind):
            return None
        first, second = self.branches
        return second if first.kind == "null" else first

    @property
    def opaque(self) -> bool:
        """Whether a column holds this type's Avro bytes instead of values."""
        return self.kind in ("null", "array", "map") or (self.kind == "union" and self.nullable is None)

    def least_bytes(self) -> int:
        """How few bytes a datum of this type can take; more than 1 is told as it is for fixed only."""
        match self.kind:
            case "null":
                return 0
            case "fixed":
                return self.size
            case "record":
                return sum(field.node.least_bytes() for field in self.fields)
        return 1


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record; `default` counts only when `has_default`."""

    name: str
    node: Node
    has_default: bool = False
    default: Any = None
    aliases: tuple[str, ...] = ()


def parse_schema(schema: Any) -> Node:
    """The tree of a record schema given as parsed JSON; SchemaRefused says where it is wrong.

    >>> fields = [{"name": "x", "type": "long"}]
    >>> parse_schema({"type": "record", "name": "R", "fields": fields}).fields[0].node.kind
    'long'
    """
    node = _Parser().node(schema, "", "schema")
    if node.kind != "record":
        raise SchemaRefused([f"a contract is a record, not {node.kind}"])
    return node


class _Parser:
    def __init__(self) -> None:
        self._known: dict[str, Node] = {}
        self._open: set[str] = set()
        self._sizes: dict[int, int] = {}
        self._depth = 0

    def node(self, schema: Any, namespace: str, path: str) -> Node:
        """The tree of any schema; `path` says where it stands, for messages."""
        if self._depth == MOST_DEPTH:
            raise SchemaRefused([f"{path}: more than {MOST_DEPTH} levels deep"])
        self._depth += 1
        made = self._any(schema, namespace, path)
        self._depth -= 1
        # Named types are shared, so a short schema can stand for a tree that has no end in practice.
        self._sizes[id(made)] = size = 1 + sum(self._sizes[id(child)] for child in _children(made))
        if size > MOST_NODES:
            raise SchemaRefused([f"{path}: more than {MOST_NODES} types once names are resolved"])
        return made

    def _any(self, schema: Any, namespace: str, path: str) -> Node:
        if isinstance(schema, str):
            return self._named(schema, namespace, path)
        if isinstance(schema, Mapping):
            return self._object(schema, namespace, path)
        if isinstance(schema, Sequence):
            return self._union(schema, namespace, path)
        raise SchemaRefused([f"{path}: a type is a name, an object or a list, not {schema!r}"])

    def _named(self, name: str, namespace: str, path: str) -> Node:
        if name in PRIMITIVES:
            return Node(name)
        full = f"{namespace}.{name}" if namespace and "." not in name else name
        if full in self._open:
            raise SchemaRefused([f"{path}: {full} contains itself; recursive types are not taken"])
        if full in self._known:
            return self._known[full]
        raise SchemaRefused([f"{path}: unknown type {name!r}"])

    def _object(self, schema: Schema, namespace: str, path: str) -> Node:
        kind = schema.get("type")
        match kind:
            case "record" | "error" | "enum" | "fixed":
                return self._definition(schema, namespace, path)
            case "array":
                items = self.node(schema.get("items"), namespace, f"{path}[]")
                if items.least_bytes() == 0:
                    raise SchemaRefused([f"{path}: array items that take no bytes are not taken"])
                return Node("array", items=items)
            case "map":
                return Node("map", items=self.node(schema.get("values"), namespace, f"{path}{{}}"))
        return self.node(kind, namespace, path)

    def _definition(self, schema: Schema, namespace: str, path: str) -> Node:
        name = schema.get("name")
        if not isinstance(name, str) or not name:
            raise SchemaRefused([f"{path}: a {schema['type']} has a name"])
        if "." not in name:
            namespace = schema.get("namespace", namespace)
            full = f"{namespace}.{name}" if namespace else name
        else:
            namespace, full = name.rpartition(".")[0], name
        if full in self._known or full in self._open:
            raise SchemaRefused([f"{path}: {full} is defined twice"])
        self._open.add(full)
        made = replace(self._body(schema, namespace, path), name=full)
        self._open.remove(full)
        self._known[full] = made
        return made

    def _body(self, schema: Schema, namespace: str, path: str) -> Node:
        if schema["type"] == "enum":
            symbols = schema.get("symbols")
            if not isinstance(symbols, list) or not 0 < len(symbols) < _MOST_SYMBOLS:
                raise SchemaRefused([f"{path}: an enum has a list of 1 to {_MOST_SYMBOLS} symbols"])
            return Node("enum", symbols=tuple(symbols), default_symbol=schema.get("default"))
        if schema["type"] == "fixed":
            size = schema.get("size")
            if not isinstance(size, int) or not 0 <= size < 2**31:
                raise SchemaRefused([f"{path}: a fixed has a size from 0 to 2**31 - 1"])
            return Node("fixed", size=size)
        fields = schema.get("fields")
        if not isinstance(fields, list):
            raise SchemaRefused([f"{path}: a record has a list of fields"])
        made = tuple(self._field(field, namespace, path) for field in fields)
        names = [field.name for field in made]
        if len(set(names)) != len(names):
            raise SchemaRefused([f"{path}: a field name stands twice in {names}"])
        return Node("record", fields=made)

    def _field(self, field: Any, namespace: str, path: str) -> Field:
        name = field.get("name") if isinstance(field, Mapping) else None
        if not isinstance(name, str) or not name.isidentifier():
            raise SchemaRefused([f"{path}: a field has a name of letters, digits and _, not {name!r}"])
        node = self.node(field.get("type"), namespace, name if path == "schema" else f"{path}.{name}")
        return Field(name, node, "default" in field, field.get("default"), tuple(field.get("aliases", ())))

    def _union(self, schema: Sequence[Any], namespace: str, path: str) -> Node:
        branches = tuple(self.node(branch, namespace, path) for branch in schema)
        if not branches or any(branch.kind == "union" for branch in branches):
            raise SchemaRefused([f"{path}: a union has branches, none of them a union"])
        if sum(branch.kind == "null" for branch in branches) > 1:
            raise SchemaRefused([f"{path}: a union has null once"])
        return Node("union", branches=branches)


def _children(node: Node) -> list[Node]:
    below = [field.node for field in node.fields] + list(node.branches)
    return below if node.items is None else [*below, node.items]
