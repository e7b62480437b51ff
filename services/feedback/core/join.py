"""The join of one partition: accepted rows in their order, each outcome beside what was served and answered.

Whatever is read of the four topics is taken in at once; `step` then goes along the accepted rows as far as
vectors and answers reach. What comes out is a function of the four logs: not of which was read first, nor of
how the reads were cut.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from services.feedback.core import keeping
from services.feedback.core.book import Book
from services.feedback.core.classes import ClassReader
from services.feedback.core.outcomes import Said, outcomes
from services.feedback.core.reasons import REASONS
from services.feedback.core.spec import JoinSpec
from services.feedback.core.walk import (
    ACTION,
    CLOCK,
    DONE,
    E_OFFSET,
    E_ROW,
    E_SOURCE,
    EARLY_HEAD,
    EARLY_TAIL,
    IS_IDLE,
    MISMATCH,
    OFFSET,
    QUEUE_HEAD,
    QUEUE_TAIL,
    REF,
    SAID,
    SAYS_CORRECTION,
    SAYS_MISSING,
    TIME,
    Rows,
    walk,
)
from shared.codec.arrays import arrays_to_batch, batch_to_arrays
from shared.codec.batch import Batch, Column, Ints, Strings
from shared.errors import Fatal
from shared.runtime.merge import EVENT, IDLE, LABEL, PROGRESS

COMPACT_AT = 65_536


@dataclass(slots=True)
class _Chunk:
    """Rows of accepted.v1 that were read together; those before `at` are done with."""

    batch: Batch
    rows: Rows
    at: int = 0

    @property
    def left(self) -> int:
        return self.batch.rows - self.at


@dataclass(frozen=True, slots=True)
class Turned:
    """Labels that were turned away: a code of REASONS, the order time of the verdict, and the accepted row."""

    codes: Ints
    times: Ints
    rows: Batch


@dataclass(slots=True)
class Step:
    """What one step gives: outcomes as Joined columns without the envelope's progress, and labels turned away."""

    outcomes: list[Batch] = field(default_factory=list)
    turned: list[Turned] = field(default_factory=list)
    passed: int = 0


class JoinFold:
    """Partition number `unit` of the join."""

    def __init__(self, spec: JoinSpec, unit: int) -> None:
        self.spec, self._unit = spec, unit
        self._book = Book(spec)
        self._classes = ClassReader(spec.label)
        self._chunks: list[_Chunk] = []
        self._compact_at = COMPACT_AT
        self.counts: Counter[int] = Counter()

    # What is read.

    def take_accepted(self, rows: Batch) -> None:
        """Rows of accepted.v1 with `key`, the message keys, and `input_offset` beside them."""
        if rows.rows:
            self._chunks.append(_Chunk(rows, self._rows(rows)))

    def take_vectors(self, rows: Batch) -> None:
        """Rows of features.v1 with `input_offset`."""
        if rows.rows:
            self._book.take_vectors(rows)

    def take_answers(self, rows: Batch, offsets: Ints) -> None:
        """Rows of predictions.v1, and where they stand there."""
        if rows.rows:
            self._book.take_answers(rows, offsets)

    def take_shadows(self, rows: Batch, offsets: Ints) -> None:
        """Rows of shadows.v1, and where they stand there."""
        if rows.rows:
            self._book.take_shadows(rows, offsets)

    def _rows(self, batch: Batch) -> Rows:
        label, count = self.spec.label, batch.rows
        is_event = batch["event"].array.astype(np.bool_, copy=False)
        is_label = batch["label"].array.astype(np.bool_, copy=False)
        idle = batch["progress.idle"].array.astype(np.bool_, copy=False)
        kind = np.where(is_event, EVENT, np.where(is_label, LABEL, np.where(idle, IDLE, PROGRESS)))
        named = np.flatnonzero(is_event | is_label)
        ids = Strings.choose(
            is_event,
            batch[f"event.{self.spec.pipeline.event.id}"].strings,
            batch[f"label.{label.id}"].strings,
        )
        ident, slot = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
        ident[named] = self._book.ids.intern(ids.take(named))
        events, time = np.flatnonzero(is_event), batch["order_time"].array.astype(np.int64)
        slot[events] = self._book.slots_of(batch["source_offset"].array[events], time[events])
        outcome, corrects, source = self._said(batch, is_label)
        return Rows(
            kind.astype(np.int64),
            time,
            ident,
            slot,
            outcome,
            corrects,
            source,
            batch["input_offset"].array.astype(np.int64),
            np.where(is_label, batch[f"label.{label.time}"].array, 0).astype(np.int64),
        )

    def _said(self, batch: Batch, is_label: npt.NDArray[np.bool_]) -> tuple[Ints, Ints, Ints]:
        """Class, whether it corrects, and number of the source, of each label."""
        label, count = self.spec.label, batch.rows
        outcome, source = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
        corrects = np.zeros(count, np.int64)
        at = np.flatnonzero(is_label)
        rows = batch.take(at)
        outcome[at] = self._classes.read(rows[f"label.{label.field}"])
        if label.correction is not None:
            said = rows[f"label.{label.correction}"]
            corrects[at] = said.array.astype(np.bool_) & said.mask()
        who = Strings.repeated(b"", at.size)
        if label.source is not None:
            column = rows[f"label.{label.source}"]
            who = Strings.choose(column.mask(), column.strings, who)
        source[at] = self._book.texts.intern(who)
        return outcome, corrects, source

    # What follows.

    def step(self) -> Step:
        """Go along the accepted rows until one needs what is not there yet.

        Raises:
            Fatal: a prediction was made from another vector than the one on features.v1.
        """
        self._compact_when_due()
        step = Step()
        while self._chunks:
            chunk = self._chunks[0]
            before = chunk.at
            self._walk(chunk, step)
            step.passed += chunk.at - before
            if chunk.left:
                break
            self._chunks.pop(0)
        return step

    def _walk(self, chunk: _Chunk, step: Step) -> None:
        rows = Rows(*(column[chunk.at :] for column in chunk.rows))
        labels = int(np.count_nonzero(rows.kind == LABEL))
        marks = self._book.marks
        queued = int(marks[QUEUE_TAIL] - marks[QUEUE_HEAD])
        held, first = int(marks[EARLY_TAIL] - marks[EARLY_HEAD]), int(marks[EARLY_TAIL])
        state = self._book.state(rows.kind.size, labels)
        said = np.empty((3 * rows.kind.size + queued + held, SAID), np.int64)
        done, count, end = walk(self.spec.rules, state, rows, said)
        if end == MISMATCH:
            at = int(self._book.slots[count, OFFSET])
            raise Fatal(
                f"events.v1/{self._unit} offset {at}: the prediction's feature hash is not the vector's; "
                "somebody else writes one of the two topics"
            )
        self._keep_early(chunk.batch, chunk.at, first)
        if count:
            self._tell(said[:count], chunk, step)
        chunk.at += done
        if end == DONE and chunk.left:
            raise Fatal("the walk ended before its rows did")

    def _keep_early(self, batch: Batch, at: int, first: int) -> None:
        """The records of the labels that have just begun to wait."""
        tail = int(self._book.marks[EARLY_TAIL])
        if tail > first:
            rows = self._book.early[first:tail, E_ROW] + at
            self._book.early_parts.append(_label_rows(batch.take(rows)))

    def _tell(self, said: Ints, chunk: _Chunk, step: Step) -> None:
        book = self._book
        codes, counts = np.unique(said[:, ACTION], return_counts=True)
        self.counts.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))
        joined = said[said[:, ACTION] <= SAYS_CORRECTION]
        if joined.shape[0]:
            step.outcomes.append(outcomes(book, self._unit, self._references(joined, chunk)))
        for early in (False, True):
            wrong = said[np.isin(said[:, ACTION], list(REASONS)) & ((said[:, REF] < 0) == early)]
            if wrong.shape[0]:
                refs = ~wrong[:, REF] if early else wrong[:, REF] + chunk.at
                source = book.early_rows() if early else chunk.batch
                turned = _label_rows(source.take(refs))
                step.turned.append(Turned(wrong[:, ACTION], wrong[:, TIME], turned))

    def _references(self, said: Ints, chunk: _Chunk) -> Said:
        """Where each label stands, who said it, and whether it was late; nothing for a missing one."""
        ref = said[:, REF]
        missing, early = said[:, ACTION] == SAYS_MISSING, ref < 0
        row = np.where(early, 0, ref + chunk.at)
        held = np.where(early & ~missing, ~ref, 0)
        own = self._book.early
        offset = np.where(early, own[held, E_OFFSET], chunk.rows.offset[row])
        source = np.where(early, own[held, E_SOURCE], chunk.rows.source[row])
        late = chunk.batch["late"].array.astype(np.bool_)[row] & ~early
        return Said(said, np.where(missing, -1, offset), np.where(missing, -1, source), late & ~missing)

    # What others ask.

    @property
    def clock(self) -> int:
        """The order time up to which all was done."""
        return int(self._book.marks[CLOCK])

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing more is expected."""
        return not self._chunks and bool(self._book.marks[IS_IDLE])

    @property
    def waiting(self) -> int:
        """Accepted rows that wait for an answer."""
        return sum(chunk.left for chunk in self._chunks)

    @property
    def open_rows(self) -> int:
        """Vectors and answers that wait for their event."""
        return self._book.open_rows()

    # State.

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """The book, and the accepted rows that wait."""
        self._compact()
        waiting = self._waiting_rows()
        held = {} if waiting is None else batch_to_arrays(waiting, "waiting|")
        return {**keeping.save(self._book), **held}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take up what `snapshot` gave."""
        self._book = Book(self.spec)
        keeping.load(self._book, arrays)
        self._chunks = []
        waiting = arrays_to_batch(arrays, "waiting|")
        if waiting is not None:
            self.take_accepted(waiting)

    def digest(self) -> str:
        """sha256 over what the state means."""
        self._compact()
        return keeping.digest(self._book, self._waiting_rows())

    def _waiting_rows(self) -> Batch | None:
        parts = [_plain(chunk.batch.take(np.arange(chunk.at, chunk.batch.rows))) for chunk in self._chunks]
        return Batch.concat(parts) if parts else None

    def _compact_when_due(self) -> None:
        book = self._book
        if max(len(book.index), book.shadow_count, int(book.marks[EARLY_TAIL])) >= self._compact_at:
            self._compact()
            most = max(len(book.index), book.shadow_count, int(book.marks[EARLY_TAIL]))
            self._compact_at = max(COMPACT_AT, 2 * most)

    def _compact(self) -> None:
        rows = [chunk.rows for chunk in self._chunks]
        keeping.compact(self._book, [r.ident for r in rows], [r.source for r in rows], [r.slot for r in rows])


def _label_rows(rows: Batch) -> Batch:
    """Of accepted rows what is needed to turn a label away, in memory of its own."""
    names = [name for name in rows.columns if name.startswith("label.")]
    names += ["key", "source_partition", "source_offset"]
    return Batch({name: _own(rows[name]) for name in names}, rows.rows)


def _own(column: Column) -> Column:
    if isinstance(column.values, Strings):
        return Column(column.values.compact(), column.valid)
    return column


def _plain(rows: Batch) -> Batch:
    """Rows whose null values are zero, so that equal rows have equal bytes."""
    columns = {}
    for name, column in rows.columns.items():
        mask, values = column.mask(), column.values
        if isinstance(values, Strings):
            values = Strings.choose(mask, values, Strings.repeated(b"", rows.rows))
        else:
            values = np.where(mask, values, np.zeros(1, values.dtype))
        columns[name] = Column(values, mask if column.valid is not None else None)
    return Batch(columns, rows.rows)
