"""What the join remembers of one partition: events with vector and answers, and labels that wait.

Everything is a row of numbers; texts stand as numbers of an interner. A row comes into being with the first
of event, vector, prediction and shadow that names its place on events.v1.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from services.feedback.core.classes import read_doubles
from services.feedback.core.index import Index
from services.feedback.core.spec import JoinSpec
from services.feedback.core.walk import (
    A_CLASS,
    A_DIGEST,
    A_HASH,
    A_LABEL,
    A_NAME,
    A_OFFSET,
    A_REGISTRY,
    A_ROLE,
    A_VERSION,
    ANSWER,
    ANSWERED,
    CLASS,
    CLOCK,
    EARLY,
    EARLY_TAIL,
    EVENT_TIME,
    FIRST,
    HAS,
    HAS_ANSWER,
    HAS_EVENT,
    HAS_VECTOR,
    HASH,
    IDENT,
    KEY,
    LAST,
    MARKS,
    OFFSET,
    ORDER,
    QUEUE_TAIL,
    SEEN,
    SLOT,
    VECTOR_OFFSET,
    WANTED,
    State,
)
from shared.codec.batch import Batch, Floats, Ints
from shared.codec.interner import Interner
from shared.kernels import kernel
from shared.runtime.merge import NEVER

_N = TypeVar("_N", bound=np.generic)

LEAST = 1_024
# Answer columns that hold texts, and the field each comes from.
ANSWER_TEXTS = {A_LABEL: "label", A_NAME: "model_name", A_DIGEST: "model_digest", A_ROLE: "role"}
SLOT_TEXTS = [KEY, *(SLOT + column for column in ANSWER_TEXTS)]
"""Columns of a row that hold texts."""
ANSWER_NUMBERS = {
    A_CLASS: "predicted_class",
    A_VERSION: "model_version",
    A_REGISTRY: "registry_offset",
    A_HASH: "feature_hash",
}


@kernel
def _chain(slots: Ints, nexts: Ints, of: Ints, first: int) -> None:
    """Hang shadows `first`, `first` + 1, ... behind those that their slots have."""
    for at in range(of.size):
        own = slots[of[at]]
        nexts[first + at] = -1
        if own[FIRST] < 0:
            own[FIRST] = first + at
        else:
            nexts[own[LAST]] = first + at
        own[LAST] = first + at
        own[SEEN] += 1


@kernel
def _follow(slots: Ints, nexts: Ints, of: Ints, out: Ints) -> None:
    count = 0
    for at in range(of.size):
        shadow = slots[of[at], FIRST]
        while shadow >= 0:
            out[count] = shadow
            count += 1
            shadow = nexts[shadow]


def grown(array: npt.NDArray[_N], rows: int, fill: int = 0) -> npt.NDArray[_N]:
    """`array` with room for `rows`; new rows hold `fill`."""
    if rows <= array.shape[0]:
        return array
    size = max(LEAST, 1 << (rows - 1).bit_length())
    made = np.full((size, *array.shape[1:]), fill, array.dtype)
    made[: array.shape[0]] = array
    return made


class Book:
    """The memory of one unit; `walk` goes over it."""

    def __init__(self, spec: JoinSpec) -> None:
        self.spec = spec
        self.values = 1 + spec.width + len(spec.features)
        self.texts, self.ids, self.index = Interner(), Interner(), Index()
        self.marks: Ints = np.zeros(MARKS, np.int64)
        self.marks[ANSWERED], self.marks[CLOCK] = -1, NEVER
        self.slots: Ints = fresh_slots(LEAST)
        self.floats: Floats = np.zeros((LEAST, self.values))
        self.shadows: Ints = np.zeros((LEAST, ANSWER), np.int64)
        self.shadow_floats: Floats = np.zeros((LEAST, 1 + spec.width))
        self.nexts: Ints = np.full(LEAST, -1, np.int64)
        self.shadow_count = 0
        self.owner: Ints = np.full(LEAST, -1, np.int64)
        self.first_early: Ints = np.full(LEAST, -1, np.int64)
        self.early: Ints = np.zeros((LEAST, EARLY), np.int64)
        self.early_parts: list[Batch] = []
        self.queue: Ints = np.zeros(LEAST, np.int64)

    def state(self, events: int, labels: int) -> State:
        """The arrays for a walk over so many events and labels."""
        self.queue = grown(self.queue, int(self.marks[QUEUE_TAIL]) + events)
        self.early = grown(self.early, int(self.marks[EARLY_TAIL]) + labels)
        self.owner = grown(self.owner, len(self.ids), -1)
        self.first_early = grown(self.first_early, len(self.ids), -1)
        return State(self.slots, self.owner, self.first_early, self.early, self.queue, self.marks)

    def slots_of(self, offsets: Ints, order: Ints) -> Ints:
        """The row of each event by its offset on events.v1; new rows, of this order time, where there are none."""
        found = self.index.slots(offsets)
        used = len(self.index)
        if used > self.slots.shape[0]:
            slots = fresh_slots(1 << (used - 1).bit_length())
            slots[: self.slots.shape[0]] = self.slots
            self.slots = slots
            self.floats = grown(self.floats, used)
        self.slots[found, OFFSET] = offsets
        self.slots[found, ORDER] = np.where(self.slots[found, ORDER] == 0, order, self.slots[found, ORDER])
        return found

    def take_vectors(self, rows: Batch) -> None:
        """Rows of features.v1."""
        at = self.slots_of(rows["source_offset"].array, rows["order_time"].array)
        self.slots[at, HAS] |= HAS_VECTOR
        self.slots[at, EVENT_TIME] = rows["event_time"].array
        self.slots[at, KEY] = self.texts.intern(rows["key"].strings)
        self.slots[at, HASH] = rows["feature_hash"].array
        self.slots[at, VECTOR_OFFSET] = rows["input_offset"].array
        first = 1 + self.spec.width
        for place, name in enumerate(self.spec.features):
            self.floats[at, first + place] = rows[f"features.{name}"].array

    def take_answers(self, rows: Batch, offsets: Ints) -> None:
        """Rows of predictions.v1 with their offsets there; `input_offset` is the vector's."""
        at = self.slots_of(rows["source_offset"].array, rows["order_time"].array)
        self.slots[at, HAS] |= HAS_ANSWER
        self.slots[at, WANTED] = rows["shadows"].array
        self.slots[at, SLOT:] = self._answers(rows, offsets)
        self.floats[at, : 1 + self.spec.width] = self._scores(rows)
        self.marks[ANSWERED] = max(int(self.marks[ANSWERED]), int(rows["input_offset"].array.max()))

    def take_shadows(self, rows: Batch, offsets: Ints) -> None:
        """Rows of shadows.v1 with their offsets there."""
        at = self.slots_of(rows["source_offset"].array, rows["order_time"].array)
        first, end = self.shadow_count, self.shadow_count + rows.rows
        self.shadows = grown(self.shadows, end)
        self.shadow_floats = grown(self.shadow_floats, end)
        self.nexts = grown(self.nexts, end, -1)
        self.shadows[first:end] = self._answers(rows, offsets)
        self.shadow_floats[first:end] = self._scores(rows)
        self.shadow_count = end
        _chain(self.slots, self.nexts, at, first)

    def shadows_of(self, slots: Ints) -> Ints:
        """The shadows of these rows, one row's behind the other's, each row's in the order of shadows.v1."""
        out = np.empty(int(self.slots[slots, SEEN].sum()), np.int64)
        _follow(self.slots, self.nexts, np.ascontiguousarray(slots), out)
        return out

    def early_rows(self) -> Batch:
        """The records of the labels that wait, by their number."""
        if len(self.early_parts) > 1:
            self.early_parts = [Batch.concat(self.early_parts)]
        return self.early_parts[0] if self.early_parts else Batch()

    def open_rows(self) -> int:
        """Vectors and answers whose event has not come."""
        used = self.slots[: len(self.index), HAS]
        return int(np.count_nonzero(used & HAS_EVENT == 0))

    def _answers(self, rows: Batch, offsets: Ints) -> Ints:
        made = np.empty((rows.rows, ANSWER), np.int64)
        made[:, A_OFFSET] = offsets
        for column, name in ANSWER_NUMBERS.items():
            made[:, column] = rows[name].array
        for column, name in ANSWER_TEXTS.items():
            made[:, column] = self.texts.intern(rows[name].strings)
        return made

    def _scores(self, rows: Batch) -> Floats:
        made = np.empty((rows.rows, 1 + self.spec.width))
        made[:, 0] = rows["score"].array
        if self.spec.width:
            made[:, 1:] = read_doubles(rows["probabilities"], self.spec.width)
        return made


def fresh_slots(rows: int) -> Ints:
    """Rows of which nothing is known."""
    made = np.zeros((rows, SLOT + ANSWER), np.int64)
    made[:, [CLASS, FIRST, LAST, IDENT, *SLOT_TEXTS]] = -1
    return made
