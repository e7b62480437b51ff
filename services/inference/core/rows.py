"""Rows of predictions.v1 and shadows.v1 from what the models gave."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.inference.core.decide import ClassNames, Decisions
from services.inference.core.lineup import ActiveModel
from services.inference.core.scoring import Scored
from shared.codec.batch import Batch, Bytes, Column, Floats, Ints, Mask, Strings

_CARRIED = (
    "event_id",
    "key",
    "feature_hash",
    "source_partition",
    "source_offset",
    "input_partition",
    "input_offset",
    "event_time",
    "order_time",
    "late",
)
_NONE = b"\0"  # an empty Avro array


@dataclass(frozen=True, slots=True)
class Answering:
    """What a pipeline's scores are called: decisions of two classes, else the classes' own names."""

    decide: Decisions | ClassNames
    labelled: bool = True
    """Whether a label is declared; without one no class is predicted."""

    def columns(self, scored: Scored) -> dict[str, Column]:
        """Score, label, class and probabilities of each row."""
        predicted = scored.predicted
        if isinstance(self.decide, Decisions):
            label = self.decide.decide(scored.scores)
        else:
            label = self.decide.of(predicted)
        return {
            "score": Column(scored.scores),
            "label": Column(label),
            "predicted_class": Column(predicted if self.labelled else np.full(len(label), -1, np.int64)),
            "probabilities": Column(_probabilities(scored)),
        }


def _probabilities(scored: Scored) -> Strings:
    if scored.probabilities is None:
        return Strings.repeated(_NONE, len(scored.scores))
    return double_arrays(scored.probabilities)


def double_arrays(matrix: Floats) -> Strings:
    """Each row of float64[n, m], m at least 1, as an Avro array of doubles.

    >>> double_arrays(np.array([[0.5]])).to_list()
    [b'\\x02\\x00\\x00\\x00\\x00\\x00\\x00\\xe0?\\x00']
    """
    rows, width = matrix.shape
    head = _long(width)
    size = len(head) + 8 * width + 1
    out: Bytes = np.zeros((rows, size), np.uint8)
    out[:, : len(head)] = np.frombuffer(head, np.uint8)
    out[:, len(head) : -1] = np.ascontiguousarray(matrix, "<f8").view(np.uint8).reshape(rows, -1)
    return Strings(out.reshape(-1), np.arange(rows, dtype=np.int64) * size, np.full(rows, size, np.int64))


def text_array(texts: Sequence[bytes]) -> bytes:
    """Texts, at least one, as one Avro array.

    >>> text_array([b"ab"])
    b'\\x02\\x04ab\\x00'
    """
    return _long(len(texts)) + b"".join(_long(len(text)) + text for text in texts) + _NONE


def _long(value: int) -> bytes:
    """A count as Avro writes it."""
    rest, out = value << 1, bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])


def carried(batch: Batch) -> dict[str, Column]:
    """What a prediction takes over from its vector."""
    return {name: batch[name] for name in _CARRIED}


def signed_by(model: ActiveModel, role: str, rows: int) -> dict[str, Column]:
    """Which model answered, in every row the same."""
    said = model.announcement
    return {
        "model_name": Column(Strings.repeated(said.name.encode(), rows)),
        "model_version": Column(np.full(rows, said.version, np.int64)),
        "model_digest": Column(Strings.repeated(said.digest.encode(), rows)),
        "role": Column(Strings.repeated(role.encode(), rows)),
        "registry_offset": Column(np.full(rows, model.registry_offset, np.int64)),
    }


def chosen(mask: Mask, yes: dict[str, Column], no: dict[str, Column]) -> dict[str, Column]:
    """Of two sets of columns the one's value where `mask` is set, else the other's."""
    out = {}
    for name, column in yes.items():
        if isinstance(column.values, Strings):
            out[name] = Column(Strings.choose(mask, column.values, no[name].strings))
        else:
            out[name] = Column(np.where(mask, column.values, no[name].array))
    return out


def merged(rows: int, parts: list[tuple[Ints, Scored]]) -> Scored:
    """What several models gave for their rows, each at its place; every row belongs to one part."""
    first = parts[0][1]
    scores, bad = np.empty(rows, np.float64), np.empty(rows, np.bool_)
    several = first.probabilities
    probabilities = None if several is None else np.empty((rows, several.shape[1]), np.float64)
    found = []
    for places, scored in parts:
        scores[places], bad[places] = scored.scores, scored.bad
        if probabilities is not None and scored.probabilities is not None:
            probabilities[places] = scored.probabilities
        found += [type(each)(int(places[each.row]), each.reason, each.message) for each in scored.rows]
    found.sort(key=lambda each: each.row)
    return Scored(scores, bad, tuple(found), probabilities, first.positive)


def kept(scored: Scored, keep: Mask) -> Scored:
    """The rows that `keep` names, all of them good."""
    several = scored.probabilities
    return Scored(
        scored.scores[keep],
        scored.bad[keep],
        (),
        None if several is None else several[keep],
        scored.positive,
    )
