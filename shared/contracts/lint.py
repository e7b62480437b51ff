"""The lint of Avro schemas: what a schema must obey before a record of it may exist. Text in, problems out.

Beyond Avro's own rules: records only, with a namespace; no recursive types and no arrays or maps whose items
take no bytes (a few bytes of input would make gigabytes); a `doc` on each field; logical types that fit.
"""

import re
from collections.abc import Iterator
from typing import Any

import fastavro
from fastavro.schema import SchemaParseException, UnknownType

from shared.contracts.defaults import default_fits
from shared.contracts.positions import Located, Path, parse_json
from shared.errors import Problem

_PRIMITIVES = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}
_LOGICAL = {
    "date": "int",
    "time-millis": "int",
    "time-micros": "long",
    "timestamp-millis": "long",
    "timestamp-micros": "long",
    "local-timestamp-millis": "long",
    "local-timestamp-micros": "long",
    "uuid": "string",
}
_DECIMAL = {"bytes", "fixed"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FULL_NAME = re.compile(rf"{_NAME.pattern}(\.{_NAME.pattern})*")
MAX_DEPTH = 32
"""Nesting of a schema; a decoder's stack is safe far beyond it, and no event needs more."""


def lint_text(text: str, file: str) -> list[Problem]:
    """Every problem of one .avsc text, in the order of the file."""
    value, at, problems = parse_json(text, file)
    if value is not None:
        problems += lint_record(value, at)
    return sorted(problems, key=lambda problem: problem.line)


def lint_record(schema: Any, at: Located) -> list[Problem]:
    """Every problem of a parsed schema whose lines are in `at`."""
    if not isinstance(schema, dict) or schema.get("type") != "record":
        return [
            at.problem(
                (), "the schema is not a record", 'write { "type": "record", "name": ..., "fields": [...] }'
            )
        ]
    problems = list(_Lint(at).run(schema))
    if not problems:
        problems += _avro_problems(schema, at)
    return problems


def _avro_problems(schema: dict[str, Any], at: Located) -> list[Problem]:
    """What the reference library finds beyond that: broken names, defaults, references."""
    try:
        fastavro.parse_schema(schema, _write_hint=False)
    except UnknownType as error:
        path = _find(schema, str(error.name).rsplit(".", 1)[-1])
        return [
            at.problem(
                path, f"unknown type {error.name!r}", "define it before its first use, or correct its name"
            )
        ]
    except (SchemaParseException, ValueError, TypeError, KeyError, AttributeError) as error:
        return [
            at.problem((), f"not a valid Avro schema: {error}", "correct it as the Avro specification says")
        ]
    return []


def _find(node: Any, word: str, path: Path = ()) -> Path:
    """Where `word` stands as a value; the root if nowhere."""
    children: Iterator[tuple[str | int, Any]] = iter(())
    if isinstance(node, dict):
        children = iter(node.items())
    elif isinstance(node, list):
        children = iter(enumerate(node))
    for key, child in children:
        if isinstance(child, str) and child.rsplit(".", 1)[-1] == word and key != "name":
            return (*path, key)
        if found := _find(child, word, (*path, key)):
            return found
    return ()


class _Lint:
    """Walks one schema, knowing the types that it is inside of and those that take no bytes."""

    def __init__(self, at: Located) -> None:
        self.at = at
        self.open_names: list[str] = []
        self.empty: dict[str, bool] = {}
        self.types: dict[str, Any] = {}

    def run(self, schema: dict[str, Any]) -> Iterator[Problem]:
        if not isinstance(schema.get("namespace"), str) and "." not in str(schema.get("name", "")):
            yield self.at.problem((), "the record has no namespace", 'write "namespace": "com.example"')
        if not schema.get("doc"):
            yield self.at.problem((), "the record has no doc", 'write "doc": "what one record says"')
        yield from self.visit(schema, (), "")

    def visit(self, node: Any, path: Path, namespace: str) -> Iterator[Problem]:
        if len(path) > 3 * MAX_DEPTH:
            yield self.at.problem(path, f"nested more than {MAX_DEPTH} deep", "write a flatter schema")
        elif isinstance(node, str):
            yield from self._reference(node, path, namespace)
        elif isinstance(node, list):
            yield from self._union(node, path, namespace)
        elif isinstance(node, dict):
            yield from self._complex(node, path, namespace)
        else:
            yield self.at.problem(path, f"{node!r} is not a type", 'write a type, such as "string"')

    def _reference(self, name: str, path: Path, namespace: str) -> Iterator[Problem]:
        full = _full_name(name, namespace)
        if name not in _PRIMITIVES and full in self.open_names:
            fix = "hold an id of the other record instead of the record"
            yield self.at.problem(path, f"recursive type {full}: it contains itself", fix)

    def _union(self, branches: list[Any], path: Path, namespace: str) -> Iterator[Problem]:
        if not branches:
            yield self.at.problem(
                path, "a union without branches", 'write a type, such as ["null", "string"]'
            )
        for i, branch in enumerate(branches):
            others = [_branch_name(other, namespace) for other in branches[:i]]
            if isinstance(branch, list):
                yield self.at.problem((*path, i), "a union inside a union", "write all branches in one list")
            elif _branch_name(branch, namespace) in others:
                yield self.at.problem((*path, i), "a type is twice in one union", "keep one of them")
            else:
                yield from self.visit(branch, (*path, i), namespace)

    def _complex(self, node: dict[str, Any], path: Path, namespace: str) -> Iterator[Problem]:
        match node.get("type"):
            case "record" | "error":
                yield from self._record(node, path, namespace)
            case "enum" | "fixed":
                yield from self._named(node, path, namespace)
            case "array":
                yield from self._items(node, "items", path, namespace)
            case "map":
                yield from self._items(node, "values", path, namespace)
            case None:
                yield self.at.problem(path, "a type is missing", 'write "type": "string", say')
            case inner:
                yield from self.visit(inner, (*path, "type"), namespace)
        yield from self._logical(node, path)

    def _record(self, node: dict[str, Any], path: Path, namespace: str) -> Iterator[Problem]:
        full = _full_name(str(node.get("name", "")), node.get("namespace") or namespace)
        fields = node.get("fields")
        if not node.get("name") or not isinstance(fields, list):
            yield self.at.problem(
                path, "a record needs a name and fields", 'write "name": ..., "fields": [...]'
            )
            return
        yield from self._name(full, node, path)
        inner = full.rpartition(".")[0]
        self.open_names.append(full)
        seen: set[str] = set()
        for i, field in enumerate(fields):
            yield from self._field(field, (*path, "fields", i), inner, seen)
        self.open_names.pop()
        self.empty[full] = all(isinstance(f, dict) and self._is_empty(f.get("type"), inner) for f in fields)

    def _field(self, field: Any, path: Path, namespace: str, seen: set[str]) -> Iterator[Problem]:
        if not isinstance(field, dict) or not isinstance(field.get("name"), str) or "type" not in field:
            yield self.at.problem(
                path, "a field needs a name and a type", 'write {"name": ..., "type": ..., "doc": ...}'
            )
            return
        name = field["name"]
        if name in seen:
            yield self.at.problem((*path, "name"), f"field `{name}` is declared twice", "rename one of them")
        seen.add(name)
        if not isinstance(field.get("doc"), str) or not field["doc"].strip():
            fix = 'write "doc": "what it means, and its unit"'
            yield self.at.problem((*path, "name"), f"field `{name}` has no doc", fix)
        if not _NAME.fullmatch(name):
            fix = "write letters, digits and _, not beginning with a digit"
            yield self.at.problem((*path, "name"), f"{name!r} cannot name a field", fix)
        yield from self.visit(field["type"], (*path, "type"), namespace)
        if "default" in field and not self._fits(field, namespace):
            fix = 'write a value of its type; of a union, of its first branch: ["null", ...] with null'
            yield self.at.problem((*path, "default"), f"the default of `{name}` is not of its type", fix)

    def _fits(self, field: dict[str, Any], namespace: str) -> bool:
        def resolve(name: str, space: str) -> Any:
            return self.types.get(_full_name(name, space))

        return default_fits(field["type"], field["default"], namespace, resolve)

    def _name(self, full: str, node: Any, path: Path) -> Iterator[Problem]:
        self.types.setdefault(full, node)
        if not _FULL_NAME.fullmatch(full):
            fix = "write letters, digits and _, not beginning with a digit"
            yield self.at.problem((*path, "name"), f"{full!r} cannot name a type", fix)

    def _named(self, node: dict[str, Any], path: Path, namespace: str) -> Iterator[Problem]:
        full = _full_name(str(node.get("name", "")), node.get("namespace") or namespace)
        self.empty[full] = node["type"] == "fixed" and node.get("size") == 0
        yield from self._name(full, node, path)
        if node["type"] == "fixed" and not (isinstance(node.get("size"), int) and node["size"] >= 0):
            yield self.at.problem(path, "a fixed type needs a size", 'write "size": 16, say')
        if node["type"] == "enum" and not node.get("symbols"):
            yield self.at.problem(path, "an enum needs symbols", 'write "symbols": ["A", "B"]')

    def _items(self, node: dict[str, Any], key: str, path: Path, namespace: str) -> Iterator[Problem]:
        if key not in node:
            yield self.at.problem(path, f"{node['type']} without {key}", f'write "{key}": "string", say')
            return
        yield from self.visit(node[key], (*path, key), namespace)
        if node["type"] == "array" and self._is_empty(node[key], namespace):
            fix = "count them in a long field instead"
            yield self.at.problem((*path, key), "array items that take no bytes", fix)
        elif node["type"] == "map" and self._is_empty(node[key], namespace):
            yield self.at.problem((*path, key), "map values that take no bytes", "write an array of the keys")

    def _is_empty(self, node: Any, namespace: str) -> bool:
        """Whether a value of this type takes no byte at all."""
        if isinstance(node, str):
            return node == "null" or self.empty.get(_full_name(node, namespace), False)
        if not isinstance(node, dict):
            return False
        if node.get("type") in ("record", "error", "fixed"):
            return self.empty.get(
                _full_name(str(node.get("name")), node.get("namespace") or namespace), False
            )
        return isinstance(node.get("type"), str | dict) and self._is_empty(node["type"], namespace)

    def _logical(self, node: dict[str, Any], path: Path) -> Iterator[Problem]:
        logical, base = node.get("logicalType"), node.get("type")
        if logical == "decimal" and base not in _DECIMAL:
            yield self.at.problem(path, f"decimal on {base!r}", 'write "type": "bytes"')
        elif logical == "uuid" and base == "fixed" and node.get("size") == 16:
            return
        elif logical in _LOGICAL and base != _LOGICAL[logical]:
            yield self.at.problem(path, f"{logical} on {base!r}", f'write "type": "{_LOGICAL[logical]}"')


def _full_name(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _branch_name(branch: Any, namespace: str) -> str:
    """What must be unique in a union: a named type's full name, else the kind of type."""
    if isinstance(branch, str):
        return branch if branch in _PRIMITIVES else _full_name(branch, namespace)
    if isinstance(branch, dict):
        if "name" in branch:
            return _full_name(str(branch["name"]), branch.get("namespace") or namespace)
        return str(branch.get("type"))
    return ""
