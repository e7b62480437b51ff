"""What has been let through: seen ids, where each source stands, and what was counted. A pure fold.

Events and labels have namespaces of their own: an event is known by its id, a label by its id and its content,
so that only events contradict each other here. Each topic's rows are folded in offset order, so the state is a
function of the two source partitions up to the released offsets, however the merge interleaved them.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from services.ingest.core.dedup import CONFLICT, NEW, SAME, Dedup, Verdicts
from services.ingest.core.reasons import ID_CONFLICT, OK
from services.ingest.core.rows import Chunk, Codes
from services.ingest.core.spec import Spec
from shared.codec.batch import Mask
from shared.runtime.unit import Arrays


@dataclass(slots=True)
class SourceState:
    """One source up to its released position: seen ids, order time of the last row, next offset."""

    spec: Spec
    seen: Dedup
    order_ms: int = 0
    next_offset: int = 0

    def arrays(self) -> Arrays:
        """The state as plain arrays."""
        place = np.array([self.order_ms, self.next_offset], np.int64)
        return {**self.seen.snapshot(), "place": place}

    def restore(self, arrays: Arrays) -> None:
        """Take up what `arrays` gave."""
        self.seen.restore(arrays)
        self.order_ms, self.next_offset = (int(x) for x in arrays["place"])

    def digest(self) -> bytes:
        """sha256 over all but the offset: a producer may write a request twice, and its repeats change nothing."""
        place = f"{self.spec.kind}:{self.order_ms};{self.seen.digest()}"
        return hashlib.sha256(place.encode()).digest()


@dataclass(frozen=True, slots=True)
class Passed:
    """A chunk after the fold: final codes of its rows, and which of its good rows are new."""

    chunk: Chunk
    codes: Codes
    new: Mask


@dataclass(slots=True)
class Counts:
    """What a unit has counted since it was made; never part of the state."""

    accepted: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)


def fold(state: SourceState, chunk: Chunk) -> tuple[Passed, Verdicts]:
    """Fold rows of one source in offset order; tells which are new and which events contradict an earlier one."""
    good = chunk.codes == OK
    order = chunk.order if good.all() else chunk.order[good]
    verdicts = state.seen.fold(chunk.good.first, chunk.good.second, chunk.good.payload, order)
    codes = chunk.codes
    conflict = verdicts == CONFLICT
    if conflict.any():
        codes = codes.copy()
        codes[np.flatnonzero(good)[conflict]] = ID_CONFLICT
    if len(chunk):
        state.order_ms = int(chunk.order[-1])
        state.next_offset = int(chunk.polled.offsets[-1]) + 1
    return Passed(chunk, codes, verdicts == NEW), verdicts


def count(counts: Counts, kind: str, verdicts: Verdicts) -> None:
    """Add one chunk's verdicts."""
    counts.accepted[kind] += int(np.count_nonzero(verdicts == NEW))
    counts.duplicates[kind] += int(np.count_nonzero(verdicts == SAME))
