"""From schemas to programs: what a writer's schema makes of a reader's columns, and what columns are written.

Avro's resolution: fields go by name (or the reader's alias), numbers widen, strings and bytes pass for each
other, enum symbols go by name, unknown fields are dropped and missing ones filled. Names of records, enums
and fixed are not compared. Subfields kept as bytes must be written alike: they are handed on as they are.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shared.codec import ops as op
from shared.codec.batch import Ints
from shared.codec.layout import ColumnSpec, Layout
from shared.codec.schema import Field, Node, SchemaRefused

# Writer's kind -> reader's kinds that it widens to, and the op that does it.
_NUMBERS = {("int", "int"): op.INT, ("int", "long"): op.INT, ("long", "long"): op.LONG}
_REALS = {("float", "float"): op.FLOAT, ("float", "double"): op.FLOAT, ("double", "double"): op.DOUBLE}
_LENGTHY = ("string", "bytes")
_MOST_VARINT = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What the decoding kernel runs; `constants` are the values of columns that the writer does not have."""

    program: Ints
    targets: Ints
    depth: int
    numbers: int
    texts: int
    flags: int
    constants: dict[str, Any]


def plan_decode(writer: Node, reader: Node, layout: Layout) -> Plan:
    """How to fill the reader's columns from the writer's bytes; SchemaRefused lists what does not fit."""
    planner = _Planner(layout)
    planner.record(writer, reader, "")
    planner.emit(op.END)
    if planner.problems:
        raise SchemaRefused(planner.problems)
    # One row more in each matrix takes what is read and dropped.
    return Plan(
        np.array(planner.lines, np.int64).reshape(-1, 4),
        np.array(planner.targets or [0], np.int64),
        planner.deepest + 1,
        layout.numbers + 1,
        layout.texts + 1,
        layout.flags + 1,
        planner.constants,
    )


@dataclass(slots=True)
class _Planner:
    layout: Layout
    lines: list[list[int]] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    deepest: int = 0
    specs: dict[str, ColumnSpec] = field(init=False)

    def __post_init__(self) -> None:
        self.specs = {spec.name: spec for spec in self.layout.columns}

    def emit(self, code: int, slot: int = 0, a: int = 0, b: int = 0) -> int:
        self.lines.append([code, slot, a, b])
        return len(self.lines) - 1

    def land(self, line: int) -> None:
        """Let the jump of `line` end here."""
        self.lines[line][3] = len(self.lines)

    def record(self, writer: Node, reader: Node, prefix: str) -> None:
        wanted = {name: f for f in reader.fields for name in (f.name, *f.aliases)}
        found: set[str] = set()
        for theirs in writer.fields:
            ours = wanted.get(theirs.name)
            if ours is None or ours.name in found:
                self.skip(theirs.node, 0)
            else:
                found.add(ours.name)
                self.resolve(theirs.node, ours.node, prefix + ours.name)
        for ours in reader.fields:
            if ours.name not in found:
                self._missing(ours, prefix + ours.name)

    def resolve(self, writer: Node, reader: Node, name: str) -> None:
        """Read a writer's value into the reader's column, or columns, called `name`."""
        inner = reader.nullable
        if reader.opaque:
            self._opaque(writer, reader, name)
        elif writer.kind == "union":
            self._from_union(writer, reader, name)
        elif inner is None:
            self._value(writer, reader, name)
        elif writer.kind != "null":
            self.emit(op.SET, self._own_flag(name))
            self.resolve(writer, inner, name) if inner.opaque else self._value(writer, inner, name)

    def _own_flag(self, name: str) -> int:
        spec = self.specs[name]
        return spec.slot if spec.kind == "presence" else spec.valid

    def _from_union(self, writer: Node, reader: Node, name: str) -> None:
        theirs, ours = writer.nullable, reader.nullable
        if theirs is not None and ours is not None:
            null = 0 if writer.branches[0].kind == "null" else 1
            line = self.emit(op.OPTIONAL, self._own_flag(name), null)
            self.resolve(theirs, ours, name) if ours.opaque else self._value(theirs, ours, name)
            self.land(line)
            return
        if sum(branch.kind == "record" for branch in writer.branches) > 1 and "record" in (
            reader.kind,
            ours.kind if ours else "",
        ):
            self.problems.append(f"{name}: {_told(writer)} does not tell which record to read")
            return
        before = len(self.problems)
        fitting = self._branches(
            writer.branches, lambda branch: self._try(branch, reader, name, len(self.lines))
        )
        if any(fitting):
            del self.problems[before:]

    def _try(self, branch: Node, reader: Node, name: str, line: int) -> bool:
        before = len(self.problems)
        self.resolve(branch, reader, name)
        if len(self.problems) == before:
            return True
        # Legal until a datum takes this branch: then that datum is bad.
        del self.lines[line:]
        self.emit(op.FAIL, a=op.UNION)
        return False

    def _branches(self, branches: tuple[Node, ...], emit: Any) -> list[bool]:
        table = len(self.targets)
        self.targets.extend([0] * len(branches))
        self.emit(op.BRANCH, a=table, b=len(branches))
        done, leaving = [], []
        for index, branch in enumerate(branches):
            self.targets[table + index] = len(self.lines)
            done.append(emit(branch))
            leaving.append(self.emit(op.JUMP))
        for line in leaving:
            self.land(line)
        return done

    def _value(self, writer: Node, reader: Node, name: str) -> None:
        pair = (writer.kind, reader.kind)
        if pair == ("record", "record"):
            self.record(writer, reader, f"{name}.")
            return
        slot = self.specs[name].slot if reader.kind != "record" else 0
        if pair in _NUMBERS or pair in _REALS:
            self.emit(_NUMBERS.get(pair, _REALS.get(pair, 0)), slot)
        elif writer.kind in ("int", "long") and reader.kind in ("float", "double"):
            self.emit(op.NUMBER_AS_DOUBLE, slot, writer.kind == "int", reader.kind == "float")
        elif writer.kind in _LENGTHY and reader.kind in _LENGTHY:
            self.emit(op.BYTES if pair == ("bytes", "bytes") else op.STRING, slot)
        elif pair == ("boolean", "boolean"):
            self.emit(op.BOOL, slot)
        elif pair == ("fixed", "fixed") and writer.size == reader.size:
            self.emit(op.FIXED, slot, writer.size)
        elif pair == ("enum", "enum"):
            self.emit(op.SYMBOL, slot, len(writer.symbols), self._symbols(writer, reader))
        else:
            self.problems.append(f"{name}: written as {_told(writer)}, read as {_told(reader)}")

    def _symbols(self, writer: Node, reader: Node) -> int:
        if writer.symbols == reader.symbols:
            return -1
        known = {symbol: index for index, symbol in enumerate(reader.symbols)}
        fallback = known.get(reader.default_symbol or "", -1)
        table = len(self.targets)
        self.targets.extend(known.get(symbol, fallback) for symbol in writer.symbols)
        return table

    def _opaque(self, writer: Node, reader: Node, name: str) -> None:
        if not _same_bytes(writer, reader):
            self.problems.append(
                f"{name}: {_told(reader)} is kept as it was written, so the writer must have the same type"
            )
            return
        slot = self.specs[name].slot
        self.emit(op.OPEN, slot)
        self.skip(writer, 0)
        self.emit(op.CLOSE, slot)

    def skip(self, node: Node, depth: int) -> None:
        """Check a value and drop it."""
        self.deepest = max(self.deepest, depth)
        number, text, flag = self.layout.numbers, self.layout.texts, self.layout.flags
        match node.kind:
            case "record":
                for member in node.fields:
                    self.skip(member.node, depth)
            case "union":
                self._branches(node.branches, lambda branch: self.skip(branch, depth))
            case "array" | "map":
                self._skip_blocks(node, depth)
            case "int" | "long" | "float" | "double":
                codes = {"int": op.INT, "long": op.LONG, "float": op.FLOAT, "double": op.DOUBLE}
                self.emit(codes[node.kind], number)
            case "string" | "bytes":
                self.emit(op.STRING if node.kind == "string" else op.BYTES, text)
            case "fixed":
                self.emit(op.FIXED, text, node.size)
            case "enum":
                self.emit(op.SYMBOL, number, len(node.symbols), -1)
            case "boolean":
                self.emit(op.BOOL, flag)

    def _skip_blocks(self, node: Node, depth: int) -> None:
        assert node.items is not None  # noqa: S101 (arrays and maps have items; parse_schema saw to it)
        self.emit(op.BLOCKS, a=depth)
        loop = self.emit(op.NEXT, a=depth)
        if node.kind == "map":
            self.emit(op.STRING, self.layout.texts)
        self.skip(node.items, depth + 1)
        self.emit(op.JUMP, b=loop)
        self.land(loop)

    def _missing(self, ours: Field, name: str) -> None:
        if not ours.has_default:
            self.problems.append(f"{name}: the writer does not have it and the reader gives no default")
            return
        self._constant(ours.node, ours.default, name)

    def _constant(self, node: Node, value: Any, name: str) -> None:
        inner = node.nullable
        if inner is not None:
            if value is None:
                return  # the flags stay down
            self.emit(op.SET, self._own_flag(name))
            node = inner
        if node.opaque:
            self._opaque_constant(node, value, name)
        elif node.kind == "record":
            for member in node.fields:
                if member.name in value or member.has_default:
                    self._constant(
                        member.node, value.get(member.name, member.default), f"{name}.{member.name}"
                    )
                else:
                    self.problems.append(f"{name}: its default has no {member.name}")
        else:
            self.constants[name] = _checked(node, value, name, self.problems)

    def _opaque_constant(self, node: Node, value: Any, name: str) -> None:
        kinds = [branch.kind for branch in node.branches]
        if node.kind == "null":
            self.constants[name] = b""
        elif value in ([], {}) and node.kind in ("array", "map"):
            self.constants[name] = b"\0"
        elif value is None and "null" in kinds:
            self.constants[name] = bytes([2 * kinds.index("null")])
        else:
            self.problems.append(f"{name}: the default of {_told(node)} can be empty or null only")


def _checked(node: Node, value: Any, name: str, problems: list[str]) -> Any:
    """A default as what the column holds: an int, float, bool, symbol's index or bytes."""
    good: dict[str, type | tuple[type, ...]] = {
        "int": int,
        "long": int,
        "float": (int, float),
        "double": (int, float),
        "boolean": bool,
    }
    if node.kind == "enum" and value in node.symbols:
        return node.symbols.index(value)
    if node.kind == "string" and isinstance(value, str):
        return value.encode()
    if node.kind in ("bytes", "fixed") and isinstance(value, str):
        return value.encode("latin-1")
    if node.kind in good and isinstance(value, good[node.kind]):
        return value
    problems.append(f"{name}: {value!r} is no default for {_told(node)}")
    return None


def _same_bytes(writer: Node, reader: Node) -> bool:
    """Whether every datum of `writer` is, byte for byte, the same datum of `reader`."""
    pair = (writer.kind, reader.kind)
    if pair in (("int", "long"), ("string", "bytes")):
        return True
    if writer.kind != reader.kind or writer.size != reader.size:
        return False
    if writer.kind == "enum":
        return reader.symbols[: len(writer.symbols)] == writer.symbols
    below = [*(f.node for f in writer.fields), *writer.branches, *([writer.items] if writer.items else [])]
    ours = [*(f.node for f in reader.fields), *reader.branches, *([reader.items] if reader.items else [])]
    named = [f.name for f in writer.fields] == [f.name for f in reader.fields]
    return named and len(below) == len(ours) and all(map(_same_bytes, below, ours))


def _told(node: Node) -> str:
    if node.kind == "union":
        return f"[{', '.join(map(_told, node.branches))}]"
    return f"fixed of {node.size}" if node.kind == "fixed" else node.kind


def plan_encode(record: Node, layout: Layout) -> tuple[Ints, int, list[str]]:
    """The encoding kernel's program, what a row takes at most beside its texts, and each line's column."""
    specs = {spec.name: spec for spec in layout.columns}
    lines: list[list[int]] = []
    names: list[str] = []

    def emit(name: str, code: int, slot: int = 0, a: int = 0) -> list[int]:
        lines.append([code, slot, a, 0])
        names.append(name)
        return lines[-1]

    def write(node: Node, name: str) -> int:
        inner = node.nullable
        if inner is not None:
            spec = specs[name]
            flag = spec.slot if spec.kind == "presence" else spec.valid
            jump = emit(name, op.OPTIONAL, flag, int(node.branches[1].kind == "null"))
            most = write_value(inner, name)
            jump[3] = len(lines)
            return 1 + most
        return write_value(node, name)

    def write_value(node: Node, name: str) -> int:
        if node.kind == "record":
            return sum(write(f.node, f"{name}.{f.name}" if name else f.name) for f in node.fields)
        spec = specs[name]
        # Flag rows behind the layout's own say which rows of a column that must have a value have one.
        if not spec.nullable:
            emit(name, op.SET, layout.flags + layout.columns.index(spec))
        emit(name, _WRITES["opaque" if node.opaque else node.kind], spec.slot, node.size or len(node.symbols))
        return _MOST_VARINT

    most = write(record, "")
    emit("", op.END)
    return np.array(lines, np.int64).reshape(-1, 4), most, names


_WRITES = {
    "boolean": op.BOOL,
    "int": op.INT,
    "long": op.LONG,
    "float": op.FLOAT,
    "double": op.DOUBLE,
    "string": op.STRING,
    "bytes": op.BYTES,
    "fixed": op.FIXED,
    "enum": op.SYMBOL,
    "opaque": op.RAW,
}
