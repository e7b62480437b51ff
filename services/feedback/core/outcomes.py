"""What the walk said as rows of joined.v1: one for the prediction, and one for each shadow of the event."""

from dataclasses import dataclass

import numpy as np

from services.feedback.core.book import Book
from services.feedback.core.classes import write_doubles
from services.feedback.core.walk import (
    A_CLASS,
    A_DIGEST,
    A_LABEL,
    A_NAME,
    A_OFFSET,
    A_REGISTRY,
    A_ROLE,
    A_VERSION,
    ACTION,
    EVENT_TIME,
    HASH,
    IDENT,
    KEY,
    OF_SLOT,
    OFFSET,
    PREVIOUS,
    SAID_CLASS,
    SEEN,
    SLOT,
    TIME,
    VECTOR_OFFSET,
)
from shared.codec.batch import Batch, Floats, Ints, Mask, Strings

LABEL_KINDS = ("LABEL", "MISSING", "LATE", "CORRECTION")
"""In the order of the walk's actions; the generated schemas have the same."""


@dataclass(frozen=True, slots=True)
class Said:
    """Actions of the walk beside their label's offset on accepted.v1, its source's number, and its lateness."""

    actions: Ints
    label_offset: Ints
    source: Ints
    late: Mask


def outcomes(book: Book, unit: int, said: Said) -> Batch:
    """Rows with the names of the Outcome record, and `order_time`, `late`, `unit`, `source_*` of the envelope.

    A missing outcome without a declared class has `label_class` -1 and an empty label.
    """
    slots = said.actions[:, OF_SLOT]
    counts = 1 + book.slots[slots, SEEN]
    of = np.repeat(np.arange(slots.size), counts)
    first = np.zeros(of.size, np.bool_)
    first[np.cumsum(counts) - counts] = True
    answers = book.slots[slots[of], SLOT:]
    scores = book.floats[slots[of], : 1 + book.spec.width]
    if not first.all():
        hung = book.shadows_of(slots)
        answers[~first] = book.shadows[hung]
        scores[~first] = book.shadow_floats[hung]
    own, action = book.slots[slots[of]], said.actions[of]
    texts = _Texts(book)
    columns = {
        **_envelope(unit, own, action, said.late[of]),
        **_outcome(book, unit, own, action, said, of),
        **_answer(texts, unit, answers, scores),
    }
    place = 1 + book.spec.width
    for at, name in enumerate(book.spec.features):
        columns[f"features.{name}"] = book.floats[slots[of], place + at]
    columns["event_id"] = book.ids.keys().take(own[:, IDENT])
    columns["key"] = texts.take(own[:, KEY])
    return Batch.of(columns)


class _Texts:
    def __init__(self, book: Book) -> None:
        self._keys = book.texts.keys()

    def take(self, numbers: Ints) -> Strings:
        """The text of each number; an empty one for -1."""
        if not (numbers < 0).any():
            return self._keys.take(numbers)
        known = numbers >= 0
        return Strings.choose(
            known,
            self._keys.take(np.maximum(numbers, 0))
            if len(self._keys)
            else Strings.repeated(b"", numbers.size),
            Strings.repeated(b"", numbers.size),
        )


_Columns = dict[str, Ints | Floats | Mask | Strings]


def _envelope(unit: int, own: Ints, action: Ints, late: Mask) -> _Columns:
    rows = action.shape[0]
    return {
        "order_time": action[:, TIME],
        "late": late,
        "unit": np.full(rows, unit, np.int64),
        "source_partition": np.full(rows, unit, np.int64),
        "source_offset": own[:, OFFSET],
    }


def _outcome(book: Book, unit: int, own: Ints, action: Ints, said: Said, of: Ints) -> _Columns:
    rows = of.size
    names = Strings.of([b"", *(name.encode() for name in book.spec.classes)])
    return {
        "kind": action[:, ACTION],
        "event_time": own[:, EVENT_TIME],
        "label_time": action[:, TIME],
        "label": names.take(action[:, SAID_CLASS] + 1),
        "label_class": action[:, SAID_CLASS],
        "previous_class": action[:, PREVIOUS],
        "label_source": _Texts(book).take(said.source[of]),
        "feature_hash": own[:, HASH],
        "event_partition": np.full(rows, unit, np.int64),
        "event_offset": own[:, OFFSET],
        "label_partition": np.full(rows, unit, np.int64),
        "label_offset": said.label_offset[of],
        "vector_partition": np.full(rows, unit, np.int64),
        "vector_offset": own[:, VECTOR_OFFSET],
    }


def _answer(texts: _Texts, unit: int, answers: Ints, scores: Floats) -> _Columns:
    return {
        "score": scores[:, 0],
        "predicted": texts.take(answers[:, A_LABEL]),
        "predicted_class": answers[:, A_CLASS],
        "probabilities": write_doubles(scores[:, 1:]),
        "model_name": texts.take(answers[:, A_NAME]),
        "model_version": answers[:, A_VERSION],
        "model_digest": texts.take(answers[:, A_DIGEST]),
        "role": texts.take(answers[:, A_ROLE]),
        "registry_offset": answers[:, A_REGISTRY],
        "prediction_partition": np.full(answers.shape[0], unit, np.int64),
        "prediction_offset": answers[:, A_OFFSET],
    }
