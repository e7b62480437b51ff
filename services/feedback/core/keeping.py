"""The book as plain arrays: without what is gone, to be saved, read back and compared."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from services.feedback.core.book import ANSWER_TEXTS, SLOT_TEXTS, Book, fresh_slots, grown
from services.feedback.core.index import Index
from services.feedback.core.walk import (
    ANSWER,
    ANSWERED,
    CLOCK,
    E_ALIVE,
    E_IDENT,
    E_NEXT,
    E_SOURCE,
    EARLY_HEAD,
    EARLY_TAIL,
    FIRST,
    HAS,
    HAS_EVENT,
    IDENT,
    IS_IDLE,
    LAST,
    OFFSET,
    ORDER,
    QUEUE_HEAD,
    QUEUE_TAIL,
    REPEATED,
    SEEN,
    STATE,
)
from shared.codec.arrays import arrays_to_batch, batch_to_arrays, digest_of
from shared.codec.batch import Batch, Ints, Strings
from shared.codec.hashing import xxh64_strings
from shared.codec.interner import Interner

Arrays = dict[str, npt.NDArray[Any]]


def compact(book: Book, idents: list[Ints], sources: list[Ints], slots: list[Ints]) -> None:
    """Let go of events older than horizon and hold, and of all that only they needed.

    `idents`, `sources` and `slots` are the numbers that rows outside hold; they are changed in place.
    """
    rules, clock = book.spec.rules, int(book.marks[CLOCK])
    used = book.slots[: len(book.index)]
    live = np.flatnonzero(used[:, ORDER] + (rules.horizon + rules.hold) >= clock)
    shadows = book.shadows_of(live)
    early = np.flatnonzero(book.early[: int(book.marks[EARLY_TAIL]), E_ALIVE])
    place = np.full(used.shape[0], -1, np.int64)
    place[live] = np.arange(live.size)
    queue = place[book.queue[int(book.marks[QUEUE_HEAD]) : int(book.marks[QUEUE_TAIL])]]
    for each in slots:
        each[:] = np.where(each >= 0, place[each], -1)
    kept = book.early_rows().take(early) if early.size else None
    _fill(book, used[live], book.floats[live], book.shadows[shadows], book.shadow_floats[shadows])
    _fill_early(book, book.early[early], kept)
    _fill_queue(book, queue)
    _forget(book, idents, sources)
    _own(book)


def _fill(book: Book, slots: Ints, floats: Any, shadows: Ints, shadow_floats: Any) -> None:
    """Hold exactly these rows and shadows, which stand in the order of the rows."""
    counts = slots[:, SEEN]
    ends = np.cumsum(counts)
    slots[:, FIRST] = np.where(counts > 0, ends - counts, -1)
    slots[:, LAST] = np.where(counts > 0, ends - 1, -1)
    nexts = np.arange(1, shadows.shape[0] + 1)
    nexts[ends[counts > 0] - 1] = -1
    size = slots.shape[0]
    book.slots = fresh_slots(max(1_024, size))
    book.slots[:size] = slots
    book.floats = grown(np.ascontiguousarray(floats), max(1_024, size))
    book.index = Index()
    book.index.slots(np.ascontiguousarray(slots[:, OFFSET]))
    book.shadow_count = shadows.shape[0]
    book.shadows = grown(np.ascontiguousarray(shadows), max(1_024, shadows.shape[0]))
    book.shadow_floats = grown(np.ascontiguousarray(shadow_floats), max(1_024, shadows.shape[0]))
    book.nexts = grown(nexts, max(1_024, nexts.size), -1)


def _fill_early(book: Book, early: Ints, kept: Batch | None) -> None:
    book.early = grown(np.ascontiguousarray(early), max(1_024, early.shape[0]))
    book.early_parts = [] if kept is None else [kept]
    book.marks[EARLY_HEAD], book.marks[EARLY_TAIL] = 0, early.shape[0]


def _fill_queue(book: Book, queue: Ints) -> None:
    book.queue = grown(queue, max(1_024, queue.size))
    book.marks[QUEUE_HEAD], book.marks[QUEUE_TAIL] = 0, queue.size


def _forget(book: Book, idents: list[Ints], sources: list[Ints]) -> None:
    """Keep only the texts that something still names."""
    used = book.slots[: len(book.index)]
    early = book.early[: int(book.marks[EARLY_TAIL])]
    shadows = book.shadows[: book.shadow_count]
    _renumber(book.ids, [used[:, IDENT], early[:, E_IDENT], *idents])
    columns = [used[:, column] for column in SLOT_TEXTS] + [shadows[:, column] for column in ANSWER_TEXTS]
    _renumber(book.texts, [*columns, early[:, E_SOURCE], *sources])


def _renumber(texts: Interner, columns: list[Ints]) -> None:
    """Keep the numbers that `columns` hold, and give them anew; -1 stays. Columns are changed in place."""
    count = len(texts)
    named = np.zeros(count, np.bool_)
    for column in columns:
        named[column[column >= 0]] = True
    kept = np.flatnonzero(named)
    place = np.full(count + 1, -1, np.int64)
    place[kept] = np.arange(kept.size)
    texts.keep(kept)
    for column in columns:
        column[:] = place[column]


def _own(book: Book) -> None:
    """Which row and which waiting labels each event id has."""
    size = max(1_024, len(book.ids))
    book.owner = np.full(size, -1, np.int64)
    book.first_early = np.full(size, -1, np.int64)
    used = book.slots[: len(book.index)]
    owners = np.flatnonzero((used[:, HAS] & HAS_EVENT != 0) & (used[:, STATE] != REPEATED))
    book.owner[used[owners, IDENT]] = owners
    last: dict[int, int] = {}
    early = book.early[: int(book.marks[EARLY_TAIL])]
    early[:, E_NEXT] = -1
    for at, ident in enumerate(early[:, E_IDENT].tolist()):
        if ident in last:
            early[last[ident], E_NEXT] = at
        else:
            book.first_early[ident] = at
        last[ident] = at


def save(book: Book) -> Arrays:
    """The state of a book that `compact` has just gone over."""
    used, shadows = len(book.index), book.shadow_count
    arrays: Arrays = {
        "slots": book.slots[:used].copy(),
        "floats": book.floats[:used].copy(),
        "shadows": book.shadows[:shadows].copy(),
        "shadow_floats": book.shadow_floats[:shadows].copy(),
        "early": book.early[: int(book.marks[EARLY_TAIL])].copy(),
        "queue": book.queue[: int(book.marks[QUEUE_TAIL])].copy(),
        "marks": book.marks.copy(),
    }
    for name, interner in (("ids", book.ids), ("texts", book.texts)):
        arrays |= {f"{name}|{part}": array for part, array in interner.snapshot().items()}
    kept = book.early_rows()
    return arrays | (batch_to_arrays(kept, "early_rows|") if kept.rows else {})


def load(book: Book, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Take up what `save` gave."""
    for name, interner in (("ids", book.ids), ("texts", book.texts)):
        interner.restore({part: arrays[f"{name}|{part}"] for part in ("data", "lengths")})
    book.marks = arrays["marks"].copy()
    slots, floats = arrays["slots"].copy(), arrays["floats"].copy()
    _fill(book, slots, floats, arrays["shadows"].copy(), arrays["shadow_floats"].copy())
    _fill_early(book, arrays["early"].copy(), arrays_to_batch(arrays, "early_rows|"))
    _fill_queue(book, arrays["queue"].copy())
    _own(book)


def digest(book: Book, waiting: Batch | None) -> str:
    """sha256 over what a compacted book means, whatever numbers its texts and rows were given."""
    used = book.slots[: len(book.index)].copy()
    order = np.argsort(used[:, OFFSET], kind="stable")
    ids, texts = _hashes(book.ids), _hashes(book.texts)
    used[:, IDENT] = ids[used[:, IDENT]]
    for column in SLOT_TEXTS:
        used[:, column] = texts[used[:, column]]
    used[:, [FIRST, LAST]] = 0
    shadows = book.shadows[: book.shadow_count].copy()
    for column in ANSWER_TEXTS:
        shadows[:, column] = texts[shadows[:, column]]
    hung = book.shadows_of(order)
    early = book.early[: int(book.marks[EARLY_TAIL])].copy()
    early[:, E_IDENT], early[:, E_SOURCE] = ids[early[:, E_IDENT]], texts[early[:, E_SOURCE]]
    queue = book.queue[: int(book.marks[QUEUE_TAIL])]
    said: Arrays = {
        "slots": used[order],
        "floats": book.floats[: len(book.index)][order],
        "shadows": shadows[hung, :ANSWER],
        "shadow_floats": book.shadow_floats[hung],
        "early": early[:, :E_NEXT],
        "queue": book.slots[queue, OFFSET],
        "marks": book.marks[[CLOCK, IS_IDLE, ANSWERED]],
    }
    kept = book.early_rows()
    said |= batch_to_arrays(kept, "early_rows|") if kept.rows else {}
    said |= batch_to_arrays(waiting, "waiting|") if waiting is not None and waiting.rows else {}
    return digest_of(said)


def _hashes(texts: Interner) -> Ints:
    """A number for each text that does not depend on the others; -1 has the last."""
    known = xxh64_strings(texts.keys() if len(texts) else Strings.of([]))
    return np.append(known, np.uint64(0)).view(np.int64)
