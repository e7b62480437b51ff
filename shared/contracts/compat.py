"""Compatibility of Avro schemas as a pure function: two schemas in, every obstacle with its place out.

Avro's resolution rules by name, alias, default and promotion. Stricter in one thing: a field keeps its
logical type, since a time in microseconds that is read as milliseconds is wrong without anybody noticing.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from shared.contracts.positions import Located, Path
from shared.errors import Problem

Level = Literal["BACKWARD_TRANSITIVE", "FULL_TRANSITIVE"]

_PROMOTIONS: Final[Mapping[str, frozenset[str]]] = {
    "int": frozenset({"long", "float", "double"}),
    "long": frozenset({"float", "double"}),
    "float": frozenset({"double"}),
    "string": frozenset({"bytes"}),
    "bytes": frozenset({"string"}),
}
_MEANING = ("logicalType", "scale", "precision")


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why data of the writer's schema cannot be read: where in both, what, and what to write instead."""

    reader: Path
    writer: Path
    message: str
    fix: str


def obstacles(reader: Any, writer: Any) -> list[Obstacle]:
    """Everything that keeps `reader` from reading data of `writer`; none means that it can.

    >>> [o.message for o in obstacles("int", "long")]
    ['long cannot be read as int']
    """
    return list(_Resolver(reader, writer).visit(reader, writer, (), ()))


def compatibility_problems(
    new: Any, at: Located, released: Iterable[tuple[str, Any]], level: Level
) -> list[Problem]:
    """Obstacles between `new` and each released version (name, schema), at lines of the new file."""
    problems = []
    for version, old in released:
        problems += [
            at.problem(o.reader, f"cannot read data of {version}: {o.message}", o.fix)
            for o in obstacles(new, old)
        ]
        if level == "FULL_TRANSITIVE":
            problems += [
                at.problem(o.writer, f"readers of {version} cannot read this: {o.message}", o.fix)
                for o in obstacles(old, new)
            ]
    return problems


class _Resolver:
    """Walks both schemas side by side; pairs of named types are compared once."""

    def __init__(self, reader: Any, writer: Any) -> None:
        self.reader_names = dict(_definitions(reader, ""))
        self.writer_names = dict(_definitions(writer, ""))
        self.compared: set[tuple[str, str]] = set()

    def visit(self, reader: Any, writer: Any, rp: Path, wp: Path) -> Iterator[Obstacle]:
        reader = _named(reader, self.reader_names)
        writer = _named(writer, self.writer_names)
        if isinstance(writer, list):
            for i, branch in enumerate(writer):
                yield from self._into(reader, branch, rp, (*wp, i))
        else:
            yield from self._into(reader, writer, rp, wp)

    def _into(self, reader: Any, writer: Any, rp: Path, wp: Path) -> Iterator[Obstacle]:
        """One type that is not a union, into whatever the reader has."""
        if not isinstance(reader, list):
            yield from self._plain(reader, _named(writer, self.writer_names), rp, wp)
            return
        writer = _named(writer, self.writer_names)
        same = [(i, b) for i, b in enumerate(reader) if _type(_named(b, self.reader_names)) == _type(writer)]
        found: list[Obstacle] = []
        for i, branch in [*same, *((i, b) for i, b in enumerate(reader) if (i, b) not in same)]:
            before = set(self.compared)
            obstacles_here = list(self._plain(_named(branch, self.reader_names), writer, (*rp, i), wp))
            if not obstacles_here:
                return
            self.compared = before
            found = found or obstacles_here
        if len(same) == 1:
            yield from found
        else:
            yield Obstacle(rp, wp, f"no branch takes {_label(writer)}", f"keep {_label(writer)} in the union")

    def _plain(self, reader: Any, writer: Any, rp: Path, wp: Path) -> Iterator[Obstacle]:
        kind, other = _type(reader), _type(writer)
        if kind != other and kind not in _PROMOTIONS.get(other, ()):
            yield Obstacle(rp, wp, f"{_label(writer)} cannot be read as {_label(reader)}", "keep the type")
            return
        meaning, was = _meaning(reader), _meaning(writer)
        if meaning != was:
            message = f"its meaning changed from {was or 'none'} to {meaning or 'none'}"
            yield Obstacle(rp, wp, message, "keep the logical type, or add a field with a default")
        if kind == "record":
            yield from self._record(reader, writer, rp, wp)
        elif kind == "enum":
            yield from self._enum(reader, writer, rp, wp)
        elif kind == "fixed":
            yield from self._fixed(reader, writer, rp, wp)
        elif kind in ("array", "map"):
            key = "items" if kind == "array" else "values"
            yield from self.visit(reader[key], writer[key], (*rp, key), (*wp, key))

    def _record(self, reader: Any, writer: Any, rp: Path, wp: Path) -> Iterator[Obstacle]:
        yield from _same_name(reader, writer, rp, wp)
        pair = (str(reader.get("name")), str(writer.get("name")))
        if pair in self.compared:
            return
        self.compared.add(pair)
        written = {field["name"]: (i, field) for i, field in enumerate(writer["fields"])}
        for i, field in enumerate(reader["fields"]):
            path: Path = (*rp, "fields", i)
            names = [field["name"], *field.get("aliases", ())]
            match = next((written[name] for name in names if name in written), None)
            if match is not None:
                j, source = match
                inner: Path = (*wp, "fields", j)
                yield from self.visit(field["type"], source["type"], (*path, "type"), (*inner, "type"))
            elif "default" not in field:
                message = f"field `{field['name']}` is not in it and has no default"
                fix = f'write a "default" for `{field["name"]}`, or "aliases" with its former name'
                yield Obstacle(path, wp, message, fix)

    def _enum(self, reader: Any, writer: Any, rp: Path, wp: Path) -> Iterator[Obstacle]:
        yield from _same_name(reader, writer, rp, wp)
        missing = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
        if missing and "default" not in reader:
            symbols = ", ".join(missing)
            yield Obstacle(
                rp, wp, f"symbols {symbols} are gone", f'keep {symbols}, or write a "default" symbol'
            )

    def _fixed(self, reader: Any, writer: Any, rp: Path, wp: Path) -> Iterator[Obstacle]:
        yield from _same_name(reader, writer, rp, wp)
        if reader["size"] != writer["size"]:
            yield Obstacle(rp, wp, f"size {writer['size']} became {reader['size']}", "keep the size")


def _same_name(reader: Any, writer: Any, rp: Path, wp: Path) -> Iterator[Obstacle]:
    names = [reader["name"], *reader.get("aliases", ())]
    if _short(writer["name"]) not in [_short(name) for name in names]:
        fix = f'keep the name, or write "aliases": ["{_short(writer["name"])}"]'
        yield Obstacle(rp, wp, f"{_short(writer['name'])} was renamed to {_short(reader['name'])}", fix)


def _definitions(node: Any, namespace: str) -> Iterator[tuple[str, Any]]:
    """Named types by full and by short name."""
    if isinstance(node, list):
        for branch in node:
            yield from _definitions(branch, namespace)
    if not isinstance(node, dict):
        return
    if node.get("type") in ("record", "enum", "fixed"):
        space = node.get("namespace") or namespace
        full = node["name"] if "." in node["name"] or not space else f"{space}.{node['name']}"
        yield _short(full), node
        yield full, node
        namespace = full.rpartition(".")[0]
    for field in node.get("fields", ()):
        yield from _definitions(field["type"], namespace)
    for key in ("type", "items", "values"):
        if isinstance(node.get(key), dict | list):
            yield from _definitions(node[key], namespace)


def _named(node: Any, names: Mapping[str, Any]) -> Any:
    """What a reference stands for, and a type that is wrapped in an object of its own, unwrapped."""
    while isinstance(node, dict) and isinstance(node.get("type"), dict | list):
        node = node["type"]
    if isinstance(node, str):
        return names.get(node, names.get(_short(node), node))
    if isinstance(node, dict) and node.get("type") in names:
        return names[node["type"]]
    return node


def _type(node: Any) -> str:
    return node if isinstance(node, str) else str(node["type"]) if isinstance(node, dict) else "union"


def _meaning(node: Any) -> str:
    if not isinstance(node, dict) or "logicalType" not in node:
        return ""
    return " ".join(str(node[key]) for key in _MEANING if key in node)


def _label(node: Any) -> str:
    kind = _type(node)
    return f"{kind} {_short(node['name'])}" if kind in ("record", "enum", "fixed") else kind


def _short(name: str) -> str:
    return name.rpartition(".")[2]
