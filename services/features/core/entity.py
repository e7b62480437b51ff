"""What one event or label does to one entity: kernels over its rows in the pool.

An entity's rows START+BEGIN .. START+END-1 of the pool are its events, sorted by time and, within a time, by
arrival. Each frame stands at [LO, HI) for the entity's newest time.
"""

from typing import NamedTuple

from services.features.core.borrow import borrowed
from services.features.core.plan import (
    BEGIN,
    CAPACITY,
    DELAY,
    DISTINCTS,
    DISTINCTS_END,
    END,
    FIRST_FRAME,
    FLIP,
    FRAME,
    FRONT,
    HELD,
    HI,
    LABELLED,
    LIVE,
    LO,
    MONOIDS,
    MONOIDS_END,
    NEWEST,
    PRESENT,
    START,
    TALLIES,
    TALLIES_END,
    TIME,
    WINDOW,
    Plan,
)
from services.features.core.spans import backward, forward
from services.features.core.tables import VALUE, find, remove
from services.features.core.tallies import NONE, count_codes, of_label, tally
from shared.codec.batch import Floats, Ints
from shared.kernels import kernel

# Older than any time that is let in; differences with any duration stay within int64.
NEVER = -(2**61)

# Words of Pool.state.
(
    TOP,
    UNIT_NEWEST,
    USED,
    CODES_USED,
    HELD_USED,
    SWEPT,
    HELD_SWEPT,
    NEED,
    LATE,
    TOO_LATE,
    ATTACHED,
    DUPLICATES,
    EXPIRED,
    STATE,
) = range(14)


class Pool(NamedTuple):
    """All memory of one unit's entities; `values` is `rows` seen as floats."""

    rows: Ints
    values: Floats
    entities: Ints
    codes: Ints  # table: entity * distincts + distinct + 1, code, 0 -> times in the window
    held: Ints  # table: entity + 1, event time, id hash -> label
    state: Ints


@kernel
def borrowed_plan(plan: Plan) -> Plan:
    """The same plan, its arrays borrowed."""
    return Plan(
        borrowed(plan.frames),
        borrowed(plan.monoids),
        borrowed(plan.tallies),
        borrowed(plan.distincts),
        borrowed(plan.outputs),
        borrowed(plan.defaults),
        borrowed(plan.sources),
        borrowed(plan.code_sources),
        plan.horizon,
        plan.unit_horizon,
        plan.labels,
        plan.first_code,
        plan.first_value,
        plan.first_monoid,
        plan.width,
        plan.entity_width,
        plan.seed,
    )


@kernel
def borrowed_pool(pool: Pool) -> Pool:
    """The same pool, its arrays borrowed."""
    return Pool(
        borrowed(pool.rows),
        borrowed(pool.values),
        borrowed(pool.entities),
        borrowed(pool.codes),
        borrowed(pool.held),
        borrowed(pool.state),
    )


@kernel
def first_after(rows: Ints, begin: int, end: int, time: int) -> int:
    """The first of the rows begin..end-1 that is later than `time`, or `end`."""
    while begin < end:
        middle = (begin + end) >> 1
        if rows[middle, TIME] <= time:
            begin = middle + 1
        else:
            end = middle
    return begin


@kernel
def floor_of(plan: Plan, pool: Pool, entity: int) -> int:
    """Events of the entity up to this time are gone."""
    own = pool.entities[entity, NEWEST] - plan.horizon
    floor: int = max(own, pool.state[UNIT_NEWEST] - plan.unit_horizon, NEVER)
    return floor


@kernel
def count_frame_codes(
    plan: Plan, pool: Pool, entity: int, frame: int, begin: int, end: int, sign: int
) -> None:
    """Let the rows begin..end-1 of the pool enter (sign 1) or leave (-1) a frame's distinct counts."""
    own = pool.entities[entity]
    d, d_end = plan.frames[frame, DISTINCTS], plan.frames[frame, DISTINCTS_END]
    pool.state[CODES_USED] += count_codes(
        plan.distincts, d, d_end, plan.seed, pool.rows, pool.codes, entity, own, begin, end, sign
    )


@kernel
def count(plan: Plan, pool: Pool, entity: int, frame: int, begin: int, end: int, sign: int) -> None:
    """Let the rows begin..end-1 of the pool enter (sign 1) or leave (-1) all counts of a frame."""
    own = pool.entities[entity]
    t, t_end = plan.frames[frame, TALLIES], plan.frames[frame, TALLIES_END]
    tally(plan.tallies, t, t_end, pool.rows, pool.values, own, begin, end, sign)
    count_frame_codes(plan, pool, entity, frame, begin, end, sign)


@kernel
def advance(
    frames: Ints,
    monoids: Ints,
    tallies: Ints,
    rows: Ints,
    values: Floats,
    own: Ints,
    newest: int,
    floor: int,
) -> None:
    """Move every frame to the entity's newest time, all but its distinct counts; let go of what is gone."""
    base, end = own[START], own[END]
    for frame in range(frames.shape[0]):
        place = FIRST_FRAME + FRAME * frame
        last = max(newest - frames[frame, DELAY], floor)
        first = max(newest - frames[frame, DELAY] - frames[frame, WINDOW], floor)
        old_lo, old_hi, flip = own[place + LO], own[place + HI], own[place + FLIP]
        lo, hi = old_lo, old_hi
        while hi < end and rows[base + hi, TIME] <= last:
            hi += 1
        while lo < hi and rows[base + lo, TIME] <= first:
            lo += 1
        own[place + LO] = lo
        own[place + HI] = hi
        m, m_end = frames[frame, MONOIDS], frames[frame, MONOIDS_END]
        if lo > flip:
            own[place + FLIP] = hi
            own[place + FRONT] = lo
            backward(monoids, m, m_end, values, base, hi, lo, hi)
        elif m < m_end:
            forward(monoids, m, m_end, values, base, flip, old_hi, hi)
        t, t_end = frames[frame, TALLIES], frames[frame, TALLIES_END]
        if t < t_end:
            tally(tallies, t, t_end, rows, values, own, base + old_hi, base + hi, 1)
            tally(tallies, t, t_end, rows, values, own, base + old_lo, base + lo, -1)
    begin = own[BEGIN]
    while begin < end and rows[base + begin, TIME] <= floor:
        begin += 1
    own[BEGIN] = begin


@kernel
def advance_all(plan: Plan, pool: Pool, entity: int, newest: int, floor: int, saved: Ints) -> None:
    """`advance`, and the distinct counts with it."""
    own = pool.entities[entity]
    for frame in range(plan.frames.shape[0]):
        place = FIRST_FRAME + FRAME * frame
        saved[2 * frame] = own[place + LO]
        saved[2 * frame + 1] = own[place + HI]
    advance(plan.frames, plan.monoids, plan.tallies, pool.rows, pool.values, own, newest, floor)
    base = own[START]
    for frame in range(plan.frames.shape[0]):
        place = FIRST_FRAME + FRAME * frame
        lo, hi = saved[2 * frame], saved[2 * frame + 1]
        count_frame_codes(plan, pool, entity, frame, base + hi, base + own[place + HI], 1)
        count_frame_codes(plan, pool, entity, frame, base + lo, base + own[place + LO], -1)


@kernel
def clear(plan: Plan, pool: Pool, entity: int) -> None:
    """Take all rows away, as if the entity had never been seen; what it holds for the future stays."""
    own = pool.entities[entity]
    for frame in range(plan.frames.shape[0]):
        place = FIRST_FRAME + FRAME * frame
        count(plan, pool, entity, frame, own[START] + own[place + LO], own[START] + own[place + HI], -1)
        own[place : place + FRAME] = 0
    own[BEGIN] = 0
    own[END] = 0
    own[NEWEST] = NEVER


@kernel
def open_entity(pool: Pool, entity: int) -> None:
    """Give an entity that is not in use its empty state."""
    own = pool.entities[entity]
    own[:] = 0
    own[NEWEST] = NEVER
    own[LIVE] = 1
    pool.state[USED] += 1


@kernel
def close_entity(plan: Plan, pool: Pool, entity: int) -> None:
    """Take an entity out of use; its rows in the pool are free at the next rebuild."""
    clear(plan, pool, entity)
    pool.entities[entity, LIVE] = 0
    pool.entities[entity, CAPACITY] = 0
    pool.state[USED] -= 1


@kernel
def shift_frames(plan: Plan, pool: Pool, entity: int, at: int, time: int, floor: int) -> None:
    """Make the frames right after a late row was put at position `at`."""
    own = pool.entities[entity]
    base = own[START]
    for frame in range(plan.frames.shape[0]):
        place = FIRST_FRAME + FRAME * frame
        last = own[NEWEST] - plan.frames[frame, DELAY]
        if time > max(last, floor):
            continue
        own[place + HI] += 1
        lo, hi, flip = own[place + LO], own[place + HI], own[place + FLIP]
        if time <= max(last - plan.frames[frame, WINDOW], floor):
            own[place + LO] += 1
            own[place + FLIP] += 1
            own[place + FRONT] = max(own[place + FRONT], at) + 1
            continue
        count(plan, pool, entity, frame, base + at, base + at + 1, 1)
        m, m_end = plan.frames[frame, MONOIDS], plan.frames[frame, MONOIDS_END]
        if at < flip:
            own[place + FLIP] = flip + 1
            own[place + FRONT] = lo
            backward(plan.monoids, m, m_end, pool.values, base, flip + 1, lo, at + 1)
        else:
            forward(plan.monoids, m, m_end, pool.values, base, flip, at, hi)


@kernel
def lend_frames(plan: Plan, pool: Pool, entity: int, time: int, floor: int, saved: Ints) -> None:
    """Stand the frames at an older time for one reading; `saved` remembers where they stood."""
    own = pool.entities[entity]
    base = own[START]
    for frame in range(plan.frames.shape[0]):
        place = FIRST_FRAME + FRAME * frame
        lo, hi = own[place + LO], own[place + HI]
        last = max(time - plan.frames[frame, DELAY], floor)
        first = max(time - plan.frames[frame, DELAY] - plan.frames[frame, WINDOW], floor)
        new_hi = first_after(pool.rows, base + own[BEGIN], base + hi, last) - base
        new_lo = first_after(pool.rows, base + own[BEGIN], base + lo, first) - base
        count(plan, pool, entity, frame, base + new_lo, base + lo, 1)
        count(plan, pool, entity, frame, base + new_hi, base + hi, -1)
        own[place + LO] = new_lo
        own[place + HI] = new_hi
        saved[2 * frame] = lo
        saved[2 * frame + 1] = hi


@kernel
def return_frames(plan: Plan, pool: Pool, entity: int, saved: Ints) -> None:
    """Undo `lend_frames`."""
    own = pool.entities[entity]
    base = own[START]
    for frame in range(plan.frames.shape[0]):
        place = FIRST_FRAME + FRAME * frame
        lo, hi = saved[2 * frame], saved[2 * frame + 1]
        count(plan, pool, entity, frame, base + own[place + HI], base + hi, 1)
        count(plan, pool, entity, frame, base + own[place + LO], base + lo, -1)
        own[place + LO] = lo
        own[place + HI] = hi


@kernel
def event_row(pool: Pool, entity: int, time: int, ident: int) -> int:
    """The first row of this time and id that is not gone, or -1."""
    own = pool.entities[entity]
    base, end = own[START], own[START] + own[END]
    row = first_after(pool.rows, base + own[BEGIN], end, time - 1)
    while row < end and pool.rows[row, TIME] == time:
        if pool.rows[row, 1] == ident:
            return row
        row += 1
    return -1


@kernel
def attach(plan: Plan, pool: Pool, entity: int, row: int, label: int) -> None:
    """Give a row its label, in the tallies of the frames that hold it too."""
    own = pool.entities[entity]
    pool.rows[row, LABELLED] = label
    pool.state[ATTACHED] += 1
    for t in range(plan.tallies.shape[0]):
        kind, place = plan.tallies[t, 1], FIRST_FRAME + FRAME * plan.tallies[t, 0]
        at = row - own[START]
        if kind != PRESENT and own[place + LO] <= at < own[place + HI]:
            own[plan.tallies[t, 3]] += of_label(label, kind, plan.tallies[t, 2])


@kernel
def take_held(plan: Plan, pool: Pool, entity: int, time: int, ident: int) -> int:
    """The label that waited for this event, no longer held; NONE if there is none."""
    at = find(pool.held, plan.seed, entity + 1, time, ident)
    if at < 0:
        return NONE
    label: int = pool.held[at, VALUE]
    drop_held(plan, pool, at)
    return label


@kernel
def drop_held(plan: Plan, pool: Pool, at: int) -> None:
    """Forget a held label."""
    pool.entities[pool.held[at, 0] - 1, HELD] -= 1
    pool.state[HELD_USED] -= 1
    remove(pool.held, plan.seed, at)
