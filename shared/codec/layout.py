"""Which columns a schema has, and in which row of which matrix a kernel keeps each."""

from dataclasses import dataclass

from shared.codec.schema import Node

FLAGS = frozenset({"boolean", "presence"})
TEXTS = frozenset({"string", "bytes", "fixed", "opaque"})


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """One column: `slot` is its row in the matrix of its kind (flags, texts or numbers).

    `valid` is the flag row of its mask, -1 when it is never null. `nullable` says that the mask is its own,
    else it is the presence of the optional record around it.
    """

    name: str
    kind: str
    slot: int
    valid: int
    nullable: bool
    node: Node


@dataclass(frozen=True, slots=True)
class Layout:
    """All columns of a record in schema order, and how many rows each matrix has."""

    columns: tuple[ColumnSpec, ...]
    numbers: int
    texts: int
    flags: int


def lay_out(record: Node) -> Layout:
    """Flatten a record: nested ones to `outer.inner`, optional ones with a presence column before them."""
    builder = _Builder()
    builder.record(record, "", -1)
    return Layout(tuple(builder.columns), builder.numbers, builder.texts, builder.flags)


class _Builder:
    def __init__(self) -> None:
        self.columns: list[ColumnSpec] = []
        self.numbers = self.texts = self.flags = 0

    def record(self, node: Node, prefix: str, mask: int) -> None:
        for field in node.fields:
            self._field(field.node, prefix + field.name, mask)

    def _field(self, node: Node, name: str, mask: int) -> None:
        inner = node.nullable
        if inner is None and node.kind == "record":
            self.record(node, f"{name}.", mask)
        elif inner is None:
            self._leaf(node, name, mask, nullable=False)
        elif inner.kind == "record":
            present = self._flag()
            self.columns.append(ColumnSpec(name, "presence", present, mask, False, node))
            self.record(inner, f"{name}.", present)
        else:
            self._leaf(inner, name, self._flag(), nullable=True)

    def _leaf(self, node: Node, name: str, valid: int, *, nullable: bool) -> None:
        kind = "opaque" if node.opaque else node.kind
        if kind in FLAGS:
            slot = self._flag()
        elif kind in TEXTS:
            slot, self.texts = self.texts, self.texts + 1
        else:
            slot, self.numbers = self.numbers, self.numbers + 1
        self.columns.append(ColumnSpec(name, kind, slot, valid, nullable, node))

    def _flag(self) -> int:
        self.flags += 1
        return self.flags - 1
