"""The state of `EntityWindows` as arrays to keep, and as one digest to compare."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from services.features.core.frames import count
from services.features.core.plan import (
    BEGIN,
    CAPACITY,
    END,
    FIRST_FRAME,
    FLIP,
    FRAME,
    FRONT,
    HELD,
    HI,
    LIVE,
    LO,
    MONOIDS,
    MONOIDS_END,
    NEWEST,
    START,
    Plan,
)
from services.features.core.pool import (
    ATTACHED,
    DUPLICATES,
    EXPIRED,
    HELD_USED,
    LATE,
    NEVER,
    STATE,
    TOO_LATE,
    TOP,
    UNIT_NEWEST,
    USED,
    Pool,
    borrowed_plan,
    borrowed_pool,
    first_after,
    floor_of,
)
from services.features.core.spans import backward, forward
from services.features.core.spec import WindowSpec
from services.features.core.tables import LEAST, ROW, VALUE, find, put
from shared.codec.batch import Ints, Strings
from shared.codec.interner import Interner
from shared.kernels import kernel

_LEAST_ROWS = 1024
_COUNTERS = (UNIT_NEWEST, LATE, TOO_LATE, ATTACHED, DUPLICATES, EXPIRED)


@dataclass(frozen=True, slots=True)
class Live:
    """What is not gone: per entity slot the first live row and how many; held labels; labels expired."""

    begins: Ints
    counts: Ints
    held: Ints  # rows of the held table
    expired: int

    @property
    def entities(self) -> int:
        """Entities with an event or a held label."""
        return int(np.union1d(np.flatnonzero(self.counts), self.held[:, 0] - 1).size)


@kernel
def _live_rows(plan: Plan, pool: Pool, begins: Ints, counts: Ints) -> None:
    for entity in range(counts.size):
        own = pool.entities[entity]
        if own[LIVE]:
            end = own[START] + own[END]
            begins[entity] = first_after(
                pool.rows, own[START] + own[BEGIN], end, floor_of(plan, pool, entity)
            )
            counts[entity] = end - begins[entity]


def live(plan: Plan, pool: Pool, slots: int) -> Live:
    """Find what is not gone, whatever was or was not let go of in memory."""
    begins, counts = np.zeros(slots, np.int64), np.zeros(slots, np.int64)
    _live_rows(plan, pool, begins, counts)
    held = pool.held[pool.held[:, 0] != 0]
    newest = pool.entities[held[:, 0] - 1, NEWEST]
    gone = np.maximum(newest - plan.horizon, max(int(pool.state[UNIT_NEWEST]) - plan.unit_horizon, NEVER))
    waiting = held[:, 1] > gone
    expired = int(pool.state[EXPIRED]) + int(np.count_nonzero(~waiting))
    return Live(begins, counts, held[waiting], expired)


@kernel
def _gather(rows: Ints, begins: Ints, counts: Ints, out: Ints) -> None:
    top = 0
    for entity in range(begins.size):
        for at in range(counts[entity]):
            out[top] = rows[begins[entity] + at, : out.shape[1]]
            top += 1


def _gathered(plan: Plan, pool: Pool, begins: Ints, counts: Ints) -> Ints:
    """Event rows, without monoid columns, of several entities one behind the other."""
    out = np.empty((int(counts.sum()), plan.first_monoid), np.int64)
    _gather(pool.rows, begins, counts, out)
    return out


def _of_specs(plan: Plan, specs: Sequence[WindowSpec]) -> bytes:
    told = (tuple(specs), plan.horizon, plan.unit_horizon, plan.tallies.tolist())
    return hashlib.sha256(repr(told).encode()).digest()


def digest(plan: Plan, specs: Sequence[WindowSpec], pool: Pool, keys: Interner) -> str:
    """SHA-256 over the live events by entity key, time and arrival, the held labels and the counters."""
    found = live(plan, pool, len(keys))
    names = keys.keys().to_list()
    order = np.array(sorted(np.flatnonzero(found.counts).tolist(), key=names.__getitem__), np.int64)
    held = sorted((names[a - 1], b, c, d) for a, b, c, d in found.held.tolist())
    counters = pool.state[list(_COUNTERS)].copy()
    counters[-1] = found.expired
    sha = hashlib.sha256(_of_specs(plan, specs))
    sha.update(counters.astype("<i8").tobytes())
    for at in order.tolist():
        sha.update(len(names[at]).to_bytes(8, "little") + names[at])
    sha.update(found.counts[order].astype("<i8").tobytes())
    sha.update(_gathered(plan, pool, found.begins[order], found.counts[order]).astype("<i8").tobytes())
    sha.update(repr(held).encode())
    return sha.hexdigest()


def save(plan: Plan, specs: Sequence[WindowSpec], pool: Pool, keys: Interner) -> dict[str, npt.NDArray[Any]]:
    """Every entity in use with its rows and where its frames stand; the held labels; the counters."""
    slots = np.flatnonzero(pool.entities[: len(keys), LIVE])
    entities = pool.entities[slots]
    names = keys.keys().take(slots).compact()
    frames = entities[:, FIRST_FRAME : FIRST_FRAME + FRAME * plan.frames.shape[0]] - entities[:, BEGIN, None]
    counts = entities[:, END] - entities[:, BEGIN]
    place = np.zeros(len(keys), np.int64)
    place[slots] = np.arange(slots.size)
    held = pool.held[pool.held[:, 0] != 0]
    held[:, 0] = place[held[:, 0] - 1]
    return {
        "specs": np.frombuffer(_of_specs(plan, specs), np.uint8),
        "keys": names.data,
        "key_lengths": names.lengths,
        "counts": counts,
        "newest": entities[:, NEWEST],
        "frames": np.maximum(frames, 0),
        "events": _gathered(plan, pool, entities[:, START] + entities[:, BEGIN], counts),
        "held": held[np.lexsort(held.T[::-1])],
        "counters": pool.state[list(_COUNTERS)],
    }


@kernel
def _refill(plan: Plan, pool: Pool, entities: int) -> None:
    """Compute anew what rows and frames decide: monoid columns, tallies and distinct counts."""
    plan, pool = borrowed_plan(plan), borrowed_pool(pool)
    for entity in range(entities):
        own = pool.entities[entity]
        base = own[START]
        for frame in range(plan.frames.shape[0]):
            place = FIRST_FRAME + FRAME * frame
            hi, flip, front = own[place + HI], own[place + FLIP], own[place + FRONT]
            m, m_end = plan.frames[frame, MONOIDS], plan.frames[frame, MONOIDS_END]
            backward(plan.monoids, m, m_end, pool.values, base, flip, front, flip)
            forward(plan.monoids, m, m_end, pool.values, base, flip, flip, hi)
            count(plan, pool, entity, frame, base + own[place + LO], base + hi, 1)


@kernel
def _rehold(plan: Plan, pool: Pool, held: Ints) -> None:
    for row in range(held.shape[0]):
        key, time, ident = held[row, 0] + 1, held[row, 1], held[row, 2]
        put(pool.held, ~find(pool.held, plan.seed, key, time, ident), key, time, ident, held[row, VALUE])
        pool.entities[held[row, 0], HELD] += 1


def load(
    plan: Plan,
    specs: Sequence[WindowSpec],
    arrays: Mapping[str, npt.NDArray[Any]],
    keys: Interner,
) -> Pool:
    """A pool that goes on as the saved one would have; fills `keys`, which is empty."""
    if arrays["specs"].tobytes() != _of_specs(plan, specs):
        raise ValueError("the snapshot was made for other windows; fold the input from the start instead")
    counts, frames, saved = arrays["counts"], arrays["frames"], arrays["events"]
    keys.intern(Strings.packed(arrays["keys"], arrays["key_lengths"]))
    entities = np.zeros((max(64, counts.size), plan.entity_width), np.int64)
    used = entities[: counts.size]
    used[:, END] = used[:, CAPACITY] = counts
    used[:, START] = np.cumsum(counts) - counts
    used[:, NEWEST] = arrays["newest"]
    used[:, LIVE] = 1
    used[:, FIRST_FRAME : FIRST_FRAME + frames.shape[1]] = frames
    rows = arena(max(_LEAST_ROWS, saved.shape[0]), plan.width)
    rows[: saved.shape[0], : plan.first_monoid] = saved
    state = np.zeros(STATE, np.int64)
    state[list(_COUNTERS)] = arrays["counters"]
    state[TOP], state[USED], state[HELD_USED] = saved.shape[0], counts.size, arrays["held"].shape[0]
    made = Pool(
        rows=rows,
        values=rows.view(np.float64),
        entities=entities,
        codes=_table(_window_rows(frames) * plan.distincts.shape[0]),
        held=_table(arrays["held"].shape[0]),
        state=state,
    )
    _refill(plan, made, counts.size)
    _rehold(plan, made, np.array(arrays["held"], np.int64))
    return made


def _window_rows(frames: Ints) -> int:
    """A bound on the rows that stand in one frame, over all entities."""
    return int(frames[:, HI::FRAME].max(axis=1, initial=0).sum())


def _table(entries: int) -> Ints:
    return np.zeros((max(LEAST, 1 << (2 * entries + 1).bit_length()), ROW), np.int64)


def arena(rows: int, width: int) -> Ints:
    """Uninitialised rows that begin on a cache line."""
    words = np.empty(rows * width + 8, np.int64)
    skip = (-words.ctypes.data % 64) // 8
    return words[skip : skip + rows * width].reshape(rows, width)
