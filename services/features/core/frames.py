"""The frames of one entity: where its windows stand, and what is counted and aggregated in them.

Each frame stands at [LO, HI) of the entity's rows for the entity's newest time; positions count from START.
"""

from services.features.core.plan import (
    BEGIN,
    DELAY,
    DISTINCTS,
    DISTINCTS_END,
    END,
    FIRST_FRAME,
    FLIP,
    FRAME,
    FRONT,
    HI,
    LO,
    MONOIDS,
    MONOIDS_END,
    NEWEST,
    START,
    TALLIES,
    TALLIES_END,
    TIME,
    WINDOW,
    Plan,
)
from services.features.core.pool import CODES_USED, Pool, first_after
from services.features.core.spans import backward, forward
from services.features.core.tallies import count_codes, tally
from shared.codec.batch import Floats, Ints
from shared.kernels import kernel


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
