"""Candidate against champion on the same served events: figures for people, evidence for the controller."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.retrainer.core.ledger import LearningRows
from services.retrainer.core.metrics import figures
from shared.contracts.expressions import compile_expression
from shared.contracts.policies import Slice
from shared.models.evidence import MAX_NAME, MAX_ROWS, MAX_SOURCES, Evidence

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ROOM_BYTES = 2 << 20
"""Of packed rows: a record on commands.v1 is at most twice as large."""
OTHERS = "(others)"
"""Sources beyond the largest that evidence has room for."""


@dataclass(frozen=True, slots=True)
class Classes:
    """How many there are, and which one a binary score speaks of."""

    count: int
    positive: int

    def truth(self, classes: Ints) -> npt.NDArray[np.uint8]:
        """Labels as evidence has them: with two classes 1 is the positive one."""
        wanted = classes == self.positive if self.count == 2 else classes
        return wanted.astype(np.uint8)

    def scores(self, probabilities: Floats) -> Floats:
        """float64[n] or [n, classes] in either form to the form of evidence."""
        if self.count == 2 and probabilities.ndim == 2:
            return np.ascontiguousarray(probabilities[:, self.positive])
        return probabilities

    def ignorant(self, rows: int) -> Floats:
        """What a model that knows nothing says."""
        shape = (rows,) if self.count == 2 else (rows, self.count)
        return np.full(shape, 1 / self.count)


def slice_bits(slices: Sequence[Slice], names: Sequence[str], matrix: Floats) -> npt.NDArray[np.uint64]:
    """uint64[n] with bit i where the row is in slice i; what is null is in none."""
    bits = np.zeros(len(matrix), np.uint64)
    columns = dict(zip(names, matrix.T, strict=True))
    for index, each in enumerate(slices):
        found = compile_expression(each.expression, dict.fromkeys(names, "number")).evaluate(columns)
        inside = np.nan_to_num(found) != 0
        bits |= inside.astype(np.uint64) << np.uint64(index)
    return bits


def source_index(sources: Sequence[str], source: Ints) -> tuple[tuple[str, ...], npt.NDArray[np.uint16]]:
    """The sources that report any of these rows, as names and an index; the smallest of too many are one."""
    counts = np.bincount(source, minlength=len(sources))
    named = np.flatnonzero(counts)
    if len(named) > MAX_SOURCES:
        named = np.sort(named[np.argsort(-counts[named], kind="stable")[: MAX_SOURCES - 1]])
    places = np.full(len(sources), len(named), np.int64)
    places[named] = np.arange(len(named))
    texts = [_short(sources[i]) for i in named.tolist()]
    if (counts[places == len(named)] > 0).any():
        texts.append(OTHERS)
    return tuple(texts), places[source].astype(np.uint16)


def _short(name: str) -> str:
    """A name within evidence's limit; a digest tells long ones apart."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 17]}~{digest}"


@dataclass(frozen=True, slots=True)
class Bout:
    """What is compared on which rows."""

    rows: LearningRows
    champion: Floats
    candidate: Floats
    unseen: bool
    """Whether the champion was trained on none of these rows."""


def fair_rows(rows: LearningRows, trained_until: int, least: int) -> tuple[npt.NDArray[np.bool_], bool]:
    """Which validation rows to judge on: those behind the champion's training, where there are enough.

    Else all of them: the champion then has an advantage, and the evidence says so.
    """
    behind = rows.sequences > trained_until
    if int(behind.sum()) >= least or behind.all():
        return behind, True
    return np.ones(len(rows), np.bool_), False


def evidence_of(bout: Bout, classes: Classes, slices: Sequence[Slice], names: Sequence[str]) -> Evidence:
    """The newest rows of a bout, as many as evidence and a record have room for."""
    room = min(MAX_ROWS, ROOM_BYTES // (8 * classes.count + 24))
    rows = bout.rows.last(room)
    source_names, sources = source_index(rows.sources, rows.source)
    return Evidence(
        classes=classes.count,
        sequences=rows.sequences,
        labels=classes.truth(rows.classes),
        champion=bout.champion[-room:].astype(np.float32),
        candidate=bout.candidate[-room:].astype(np.float32),
        slice_names=tuple(each.name for each in slices),
        slices=slice_bits(slices, names, rows.matrix),
        source_names=source_names,
        sources=sources,
    )


def by_part(evidence: Evidence) -> Mapping[str, dict[str, dict[str, float]]]:
    """Figures of both overall ("all"), by slice ("slice:...") and by source ("source:...")."""
    parts = {"all": np.ones(evidence.rows, np.bool_)}
    parts |= {f"slice:{name}": evidence.in_slice(i) for i, name in enumerate(evidence.slice_names)}
    if len(evidence.source_names) > 1:
        largest = np.argsort(-np.bincount(evidence.sources), kind="stable")[:20].tolist()
        parts |= {f"source:{evidence.source_names[i]}": evidence.sources == i for i in largest}
    found = {}
    for name, inside in parts.items():
        truth = evidence.labels[inside]
        found[name] = {
            "champion": _figures(truth, evidence.champion[inside]),
            "candidate": _figures(truth, evidence.candidate[inside]),
        }
    return found


def _figures(truth: npt.NDArray[np.uint8], scores: npt.NDArray[np.float32]) -> dict[str, float]:
    if not len(truth):
        return {"rows": 0.0}
    return figures(truth.astype(np.int64), scores.astype(np.float64)) | {"rows": float(len(truth))}
