"""The merge against its definition, one row at a time, and the laws that the rest of the system leans on."""

import itertools
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shared.codec.batch import Batch
from shared.runtime.merge import EVENT, FOREVER, IDLE, LABEL, NEVER, PROGRESS, Merge

Row = tuple[int, int, int, int]  # kind, source, time, offset


@dataclass
class Naive:
    """The definition: after each row, release what every source that is not idle has passed."""

    sources: int
    marks: dict[int, int] = field(default_factory=dict)
    idle: set[int] = field(default_factory=set)
    queues: dict[int, list[tuple[int, int, int, int]]] = field(default_factory=dict)
    released_to: int = NEVER
    newest: int = NEVER
    out: list[tuple[int, int, bool]] = field(default_factory=list)  # offset, time, late

    def low(self) -> int:
        return min(
            (self.marks.get(s, NEVER) for s in range(self.sources) if s not in self.idle), default=FOREVER
        )

    def step(self, row: Row) -> None:
        kind, source, time, offset = row
        if kind == IDLE:
            self.idle.add(source)
            self.marks[source] = max(self.marks.get(source, NEVER), time)
            self.newest = max(self.newest, time)
        else:
            self.idle.discard(source)
            mark = self.marks.get(source, NEVER)
            self.marks[source] = max(mark, time)
            if kind != PROGRESS and time < self.released_to:
                self.out.append((offset, self.released_to, True))
                return
            if kind != PROGRESS:
                time = max(time, mark)
                self.queues.setdefault(source, []).append((time, kind, source, offset))
            self.newest = max(self.newest, time)
        while heads := [q[0] for q in self.queues.values() if q and q[0][0] < self.low()]:
            first = min(heads)
            self.queues[first[2]].pop(0)
            self.out.append((first[3], first[0], False))
        self.released_to = max(self.released_to, min(self.low(), self.newest))


rows = st.lists(
    st.tuples(st.sampled_from([LABEL, EVENT, EVENT, PROGRESS, IDLE]), st.integers(0, 2), st.integers(0, 30)),
    max_size=60,
).map(lambda found: [(k, s, t, i) for i, (k, s, t) in enumerate(found)])


def batch(part: list[Row]) -> Batch:
    kind, source, time, offset = np.array(part, np.int64).reshape(-1, 4).T.copy()
    return Batch.of(
        {
            "kind": kind,
            "queue": source,
            "source_partition": source,
            "order_time": time,
            "source_offset": offset,
            "late": np.zeros(len(part), np.bool_),
        }
    )


def told(released: Batch) -> list[tuple[int, int, bool]]:
    columns = (released[n].array.tolist() for n in ("source_offset", "order_time", "late"))
    return list(zip(*columns, strict=True))


def fold(merge: Merge, found: list[Row], cuts: list[int]) -> list[tuple[int, int, bool]]:
    out = []
    edges = [0, *sorted(min(c, len(found)) for c in cuts), len(found)]
    for start, end in itertools.pairwise(edges):
        if start < end:
            out += told(merge.push(batch(found[start:end])))
    return out


@given(rows)
def test_going_idle_at_once_or_after_a_word_is_the_same(found: list[Row]) -> None:
    words = [
        part
        for kind, source, time, offset in found
        for part in ([(PROGRESS, source, time, offset)] if kind == IDLE else [])
        + [(kind, source, time, offset)]
    ]
    one, other = Merge(3), Merge(3)
    assert fold(one, found, []) == fold(other, words, [])
    assert one.marks.tolist() == other.marks.tolist()
    assert one.idle.tolist() == other.idle.tolist()
    assert one.frontiers.tolist() == other.frontiers.tolist()


def test_a_source_without_rows_passes_on_where_it_has_come_to() -> None:
    merge = Merge(2)
    merge.push(batch([(PROGRESS, 0, 7, 0), (PROGRESS, 1, 9, 0)]))
    assert merge.frontier == 7


@given(rows, st.lists(st.integers(0, 60), max_size=5))
def test_merge_is_the_definition_however_the_rows_are_cut(found: list[Row], cuts: list[int]) -> None:
    naive = Naive(3)
    for row in found:
        naive.step(row)
    merge = Merge(3)
    assert fold(merge, found, cuts) == naive.out
    assert merge.frontier == naive.released_to
    assert merge.late_total == sum(late for _, _, late in naive.out)


@given(rows, st.integers(0, 60))
def test_restored_merge_goes_on_alike(found: list[Row], cut: int) -> None:
    whole, first = Merge(3), Merge(3)
    expected = fold(whole, found, [cut])
    got = fold(first, found[:cut], [])
    second = Merge(3)
    second.restore(first.marks, first.idle, first.frontiers)
    second.waiting = first.waiting
    assert got + fold(second, found[cut:], []) == expected


streams = st.lists(
    st.lists(st.tuples(st.sampled_from([LABEL, EVENT]), st.integers(0, 40)), max_size=12),
    min_size=3,
    max_size=3,
)


@given(streams, st.randoms(use_true_random=False), st.randoms(use_true_random=False))
def test_interleaving_does_not_matter_while_no_source_is_idle(
    found: list[list[tuple[int, int]]], one: object, other: object
) -> None:
    queues = []
    for source, stream in enumerate(found):
        times = np.maximum.accumulate(np.array([t for _, t in stream], np.int64))
        queue = [
            (k, source, int(t), 100 * source + i)
            for i, ((k, _), t) in enumerate(zip(stream, times, strict=True))
        ]
        queues.append([*queue, (PROGRESS, source, 1_000, -1)])

    def shuffled(random: object) -> list[Row]:
        left = [list(q) for q in queues]
        out = []
        while any(left):
            out.append(random.choice([q for q in left if q]).pop(0))  # type: ignore[attr-defined]
        return out

    assert fold(Merge(3), shuffled(one), []) == fold(Merge(3), shuffled(other), [])


def test_nothing_is_released_before_every_source_has_spoken() -> None:
    merge = Merge(2)
    assert told(merge.push(batch([(EVENT, 0, 5, 0), (EVENT, 0, 9, 1)]))) == []
    assert told(merge.push(batch([(PROGRESS, 1, 6, 2)]))) == [(0, 5, False)]


def test_label_goes_before_event_of_the_same_time() -> None:
    merge = Merge(2)
    rows: list[Row] = [(EVENT, 0, 5, 0), (LABEL, 1, 5, 1), (PROGRESS, 0, 9, 2), (PROGRESS, 1, 9, 3)]
    assert told(merge.push(batch(rows))) == [(1, 5, False), (0, 5, False)]


def test_row_of_a_woken_source_is_late_and_kept() -> None:
    merge = Merge(2)
    assert told(merge.push(batch([(IDLE, 1, 0, 0), (EVENT, 0, 8, 1), (PROGRESS, 0, 9, 2)]))) == [
        (1, 8, False)
    ]
    assert told(merge.push(batch([(EVENT, 1, 3, 3)]))) == [(3, 9, True)]
    assert merge.late_total == 1
