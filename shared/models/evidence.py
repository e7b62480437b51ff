"""What a proposal rests on, as bytes: outcomes and the scores of champion and candidate on the same served rows.

Layout, little-endian: `MREV`, version u8 (1), classes u8, rows u32, names u32; then `names` bytes of canonical
JSON {"slices": [...], "sources": [...]}; then by column: sequences i64, labels u8, champion f32, candidate f32,
slices u64, sources u16. Nothing may follow. The same evidence gives the same bytes; other bytes are refused.
"""

import hashlib
import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.errors import Refused
from shared.models.safety import strict_json

MAX_ROWS = 10_000
MAX_CLASSES = 64
MAX_SLICES = 64
MAX_SOURCES = 1_024
MAX_NAME = 200
VERSION = 1
_HEAD = struct.Struct("<4sBBII")
_MAGIC = b"MREV"
Ints = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Rows in ledger order that the candidate was not trained on.

    `sequences` int64[n] rise and place each row on labeled.v1. `labels` uint8[n] are indices of declared
    classes; with two classes 1 means the positive one. `champion` and `candidate` are float32[n] of the positive
    class where there are two classes, else float32[n, classes] in declared order. `slices` uint64[n] has bit i
    set where the row is in `slice_names[i]`; `sources` uint16[n] are indices into `source_names`.
    """

    classes: int
    sequences: Ints
    labels: npt.NDArray[np.uint8]
    champion: Scores
    candidate: Scores
    slice_names: tuple[str, ...]
    slices: npt.NDArray[np.uint64]
    source_names: tuple[str, ...]
    sources: npt.NDArray[np.uint16]

    @property
    def rows(self) -> int:
        """How many served events it speaks of."""
        return len(self.labels)

    def in_slice(self, index: int) -> npt.NDArray[np.bool_]:
        """bool[n]: the rows in `slice_names[index]`."""
        return np.asarray((self.slices >> np.uint64(index)) & np.uint64(1), np.bool_)

    def check(self) -> None:
        """Refused unless shapes, ranges and names are those of the contract."""
        _check_counts(self)
        _check_columns(self)


def digest(data: bytes) -> str:
    """sha256 in hex of packed evidence, as audit.v1 names it."""
    return hashlib.sha256(data).hexdigest()


def pack(evidence: Evidence) -> bytes:
    """The evidence's only byte form; Refused where `check` refuses."""
    evidence.check()
    names = _names(evidence.slice_names, evidence.source_names)
    head = _HEAD.pack(_MAGIC, VERSION, evidence.classes, evidence.rows, len(names))
    columns = [
        getattr(evidence, name).astype(dtype).tobytes() for name, dtype, _ in _columns(evidence.classes)
    ]
    return head + names + b"".join(columns)


def unpack(data: bytes) -> Evidence:
    """Read `pack`'s bytes; Refused for anything else, before more is allocated than `data` holds."""
    if len(data) < _HEAD.size:
        raise Refused(f"evidence: {len(data)} bytes hold no header")
    magic, version, classes, rows, size = _HEAD.unpack_from(data)
    if magic != _MAGIC or version != VERSION:
        raise Refused("evidence: not evidence of version 1")
    if not 2 <= classes <= MAX_CLASSES or not 1 <= rows <= MAX_ROWS:
        raise Refused(f"evidence: {rows} rows of {classes} classes")
    row_bytes = sum(np.dtype(dtype).itemsize * width for _, dtype, width in _columns(classes))
    if len(data) != _HEAD.size + size + rows * row_bytes:
        raise Refused(f"evidence: {len(data)} bytes for {rows} rows and {size} bytes of names")
    slice_names, source_names = _read_names(data[_HEAD.size : _HEAD.size + size])
    at, columns = _HEAD.size + size, {}
    for name, dtype, width in _columns(classes):
        part = np.frombuffer(data, dtype, rows * width, at)
        columns[name] = part.astype(part.dtype.newbyteorder("=")).reshape(
            (rows, width) if width > 1 else (rows,)
        )
        at += part.nbytes
    found = Evidence(classes, slice_names=slice_names, source_names=source_names, **columns)
    found.check()
    return found


def _columns(classes: int) -> tuple[tuple[str, str, int], ...]:
    """Name, dtype and numbers a row of each column, in their order."""
    width = 1 if classes == 2 else classes
    return (
        ("sequences", "<i8", 1),
        ("labels", "<u1", 1),
        ("champion", "<f4", width),
        ("candidate", "<f4", width),
        ("slices", "<u8", 1),
        ("sources", "<u2", 1),
    )


def _names(slices: tuple[str, ...], sources: tuple[str, ...]) -> bytes:
    document = {"slices": list(slices), "sources": list(sources)}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _read_names(data: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    try:
        document: Any = strict_json(data)
    except ValueError as error:
        raise Refused(f"evidence: names are not JSON: {error}") from error
    if not isinstance(document, dict) or set(document) != {"slices", "sources"}:
        raise Refused("evidence: names are slices and sources, no more and no less")
    both = []
    for names in (document["slices"], document["sources"]):
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise Refused("evidence: names are lists of texts")
        both.append(tuple(names))
    if _names(*both) != data:
        raise Refused("evidence: names are not in their canonical form")
    return both[0], both[1]


def _check_counts(evidence: Evidence) -> None:
    slices, sources = evidence.slice_names, evidence.source_names
    if not 2 <= evidence.classes <= MAX_CLASSES or not 1 <= evidence.rows <= MAX_ROWS:
        raise Refused(f"evidence: {evidence.rows} rows of {evidence.classes} classes")
    if len(slices) > MAX_SLICES or not 1 <= len(sources) <= MAX_SOURCES:
        raise Refused(f"evidence: {len(slices)} slices and {len(sources)} sources")
    for names in (slices, sources):
        if len(set(names)) != len(names) or any(len(name) > MAX_NAME for name in names):
            raise Refused(f"evidence: names are distinct and at most {MAX_NAME} characters")


def _check_columns(evidence: Evidence) -> None:
    for name, _, width in _columns(evidence.classes):
        shape = (evidence.rows,) if width == 1 else (evidence.rows, width)
        if getattr(evidence, name).shape != shape:
            raise Refused(f"evidence: {name} is {getattr(evidence, name).shape}, not {shape}")
    if (np.diff(evidence.sequences) <= 0).any() or evidence.sequences[0] < 0:
        raise Refused("evidence: sequences do not rise")
    if int(evidence.labels.max()) >= evidence.classes:
        raise Refused("evidence: a label is no class")
    for scores in (evidence.champion, evidence.candidate):
        if not np.isfinite(scores).all() or (scores < 0).any() or (scores > 1).any():
            raise Refused("evidence: a score is no probability")
    if int(evidence.sources.max()) >= len(evidence.source_names):
        raise Refused("evidence: a source has no name")
    if int(evidence.slices.max()) >> len(evidence.slice_names):
        raise Refused("evidence: a slice has no name")
