"""The kernel that folds a batch of rows, and what it does for each event and label."""

import numpy as np

from services.features.core.borrow import prefetch
from services.features.core.entity import attach, clear, event_row, open_entity, take_held
from services.features.core.frames import advance, advance_all, lend_frames, return_frames, shift_frames
from services.features.core.plan import (
    BEGIN,
    CAPACITY,
    DELAY,
    END,
    FIRST_FRAME,
    FRAME,
    HELD,
    HI,
    IDENT,
    LABELLED,
    LIVE,
    LO,
    NEWEST,
    START,
    TIME,
    Plan,
)
from services.features.core.pool import (
    ATTACHED,
    DUPLICATES,
    EXPIRED,
    HELD_USED,
    LATE,
    NEED,
    NEVER,
    TOO_LATE,
    UNIT_NEWEST,
    Pool,
    borrowed_plan,
    borrowed_pool,
    first_after,
)
from services.features.core.readout import emit, emit_all
from services.features.core.room import has_codes, has_row, move
from services.features.core.tables import find, put
from services.features.core.tallies import NONE
from shared.codec.batch import Bytes, Floats, Ints
from shared.kernels import kernel

# Why the fold stopped: at the end, or for want of room in one of the pool's parts.
DONE, NEEDS_ROWS, NEEDS_CODES, NEEDS_HELD = range(4)
# So many rows ahead an entity's row, and then its events, are asked for.
_FAR, _NEAR = 16, 8


@kernel
def _fill_values(sources: Ints, first: int, floats: Floats, row: int, values: Floats) -> None:
    """Write an event's values into its row."""
    for column in range(sources.size):
        # Adding 0.0 makes one zero of the two.
        floats[row, first + column] = values[sources[column]] + 0.0


@kernel
def _write_row(
    plan: Plan, pool: Pool, entity: int, row: int, time: int, ident: int, codes: Ints, values: Floats
) -> None:
    """Write one event's row, with the label that waited for it."""
    pool.rows[row, TIME] = time
    for column in range(plan.code_sources.size):
        pool.rows[row, plan.first_code + column] = codes[plan.code_sources[column]]
    _fill_values(plan.sources, plan.first_value, pool.values, row, values)
    if plan.labels:
        pool.rows[row, IDENT] = ident
        pool.rows[row, LABELLED] = NONE
        if pool.entities[entity, HELD] > 0:
            label = take_held(plan, pool, entity, time, ident)
            if label != NONE:
                pool.rows[row, LABELLED] = label
                pool.state[ATTACHED] += 1


@kernel
def _insert_late(
    plan: Plan,
    pool: Pool,
    entity: int,
    time: int,
    ident: int,
    codes: Ints,
    values: Floats,
    floor: int,
    saved: Ints,
) -> int:
    """Put an event behind the last one that is not newer; its row."""
    own = pool.entities[entity]
    advance_all(plan, pool, entity, own[NEWEST], floor, saved)
    row = first_after(pool.rows, own[START] + own[BEGIN], own[START] + own[END], time)
    for at in range(own[START] + own[END], row, -1):
        pool.rows[at] = pool.rows[at - 1]
    own[END] += 1
    _write_row(plan, pool, entity, row, time, ident, codes, values)
    shift_frames(plan, pool, entity, row - own[START], time, floor)
    pool.state[LATE] += 1
    return row


@kernel
def _floor(state: Ints, unit_horizon: int, now: int, own: int) -> int:
    """Note the unit's newest time; events up to the floor are gone for an entity whose own floor is `own`."""
    state[UNIT_NEWEST] = max(state[UNIT_NEWEST], now)
    floor: int = max(own, state[UNIT_NEWEST] - unit_horizon, NEVER)
    return floor


@kernel
def _any_event(
    plan: Plan,
    pool: Pool,
    entity: int,
    time: int,
    ident: int,
    codes: Ints,
    values: Floats,
    out: Floats,
    saved: Ints,
) -> int:
    """Fold one event and write its features; the reason when there is no room and nothing was done."""
    own, state = pool.entities[entity], pool.state
    newest = own[NEWEST] if own[LIVE] else NEVER
    floor = _floor(state, plan.unit_horizon, time, max(newest, time) - plan.horizon)
    if time <= floor:
        state[TOO_LATE] += 1
        out[:] = plan.defaults
        return DONE
    if not own[LIVE]:
        open_entity(pool, entity)
    elif newest <= floor and own[END] > 0:
        clear(plan, pool, entity)
    if not has_row(plan, pool, entity):
        return NEEDS_ROWS
    if plan.distincts.shape[0] > 0 and not has_codes(plan, pool, entity):
        return NEEDS_CODES
    if time >= newest:
        row = own[START] + own[END]
        own[END] += 1
        own[NEWEST] = time
        _write_row(plan, pool, entity, row, time, ident, codes, values)
        advance_all(plan, pool, entity, time, floor, saved)
        emit_all(plan, pool, entity, row, out)
    else:
        row = _insert_late(plan, pool, entity, time, ident, codes, values, floor, saved)
        lend_frames(plan, pool, entity, time, floor, saved)
        emit_all(plan, pool, entity, row, out)
        return_frames(plan, pool, entity, saved)
    return DONE


@kernel
def _label(plan: Plan, pool: Pool, entity: int, time: int, ident: int, label: int) -> int:
    """Give a label to its event, or hold it until the event comes."""
    own, state = pool.entities[entity], pool.state
    newest = own[NEWEST] if own[LIVE] else NEVER
    floor = max(newest - plan.horizon, state[UNIT_NEWEST] - plan.unit_horizon, NEVER)
    if time <= floor:
        state[EXPIRED] += 1
        return DONE
    if 2 * (state[HELD_USED] + 1) > pool.held.shape[0]:
        state[NEED] = state[HELD_USED] + 1
        return NEEDS_HELD
    row = event_row(pool, entity, time, ident) if own[LIVE] else -1
    if row >= 0:
        if pool.rows[row, LABELLED] == NONE:
            attach(plan, pool, entity, row, label)
        else:
            state[DUPLICATES] += 1
        return DONE
    at = find(pool.held, plan.seed, entity + 1, time, ident)
    if at >= 0:
        state[DUPLICATES] += 1
        return DONE
    if not own[LIVE]:
        open_entity(pool, entity)
    put(pool.held, ~at, entity + 1, time, ident, label)
    own[HELD] += 1
    state[HELD_USED] += 1
    return DONE


@kernel
def _usual_row(rows: Ints, own: Ints, now: int, floor: int, frames: int, distincts: int) -> int:
    """Where to append an event that is in order and has room, without distinct counts or held labels.

    This spares the usual event the calls that carry the whole plan and pool. -1 for any other event.
    """
    if distincts > 0 or own[LIVE] == 0 or own[HELD] > 0 or now < own[NEWEST] or now <= floor:
        return -1
    if own[NEWEST] <= floor:
        own[BEGIN] = 0
        own[END] = 0
        own[FIRST_FRAME:] = 0
    elif own[END] == own[CAPACITY] and 4 * own[BEGIN] >= own[CAPACITY]:
        move(rows, own, own[START], frames)
    if own[END] == own[CAPACITY]:
        return -1
    at: int = own[START] + own[END]
    own[NEWEST] = now
    own[END] += 1
    return at


@kernel
def _ask(frames: Ints, rows: Ints, entities: Ints, far: int, near: int) -> None:
    """Ask for the memory that a far row's entity and a nearer row's events will need."""
    for word in range(0, entities.shape[1] + 7, 8):
        prefetch(entities, far, word)
    own = entities[near]
    end = own[START] + own[END]
    prefetch(rows, end - 1, 0)
    prefetch(rows, end, 0)
    for frame in range(frames.shape[0]):
        place = FIRST_FRAME + FRAME * frame
        prefetch(rows, own[START] + own[place + LO], 0)
        prefetch(rows, own[START] + own[place + LO] + 1, 0)
        if frames[frame, DELAY] > 0:
            prefetch(rows, own[START] + own[place + HI], 0)


@kernel
def fold_rows(
    plan: Plan,
    pool: Pool,
    row: int,
    written: int,
    kind: Bytes,
    entity: Ints,
    time: Ints,
    ident: Ints,
    codes: Ints,
    values: Floats,
    label: Ints,
    out: Floats,
) -> tuple[int, int, int]:
    """Fold the rows from `row` on; the next row, the outputs written so far, and why it stopped there."""
    plan, pool = borrowed_plan(plan), borrowed_pool(pool)
    saved = np.empty(2 * plan.frames.shape[0], np.int64)
    while row < kind.size:
        if row + _FAR < kind.size:
            _ask(plan.frames, pool.rows, pool.entities, entity[row + _FAR], entity[row + _NEAR])
        own, now = pool.entities[entity[row]], time[row]
        if kind[row] != 0:
            stop = _label(plan, pool, entity[row], now, ident[row], label[row])
            if stop != DONE:
                return row, written, stop
            row += 1
            continue
        floor = _floor(pool.state, plan.unit_horizon, now, now - plan.horizon)
        at = _usual_row(pool.rows, own, now, floor, plan.frames.shape[0], plan.distincts.shape[0])
        if at >= 0:
            pool.rows[at, TIME] = now
            if plan.labels:
                pool.rows[at, IDENT] = ident[row]
                pool.rows[at, LABELLED] = NONE
            _fill_values(plan.sources, plan.first_value, pool.values, at, values[row])
            advance(plan.frames, plan.monoids, plan.tallies, pool.rows, pool.values, own, now, floor)
            emit(
                plan.outputs,
                plan.monoids,
                plan.defaults,
                pool.rows,
                pool.values,
                own,
                at,
                out[written],
            )
        else:
            stop = _any_event(
                plan, pool, entity[row], now, ident[row], codes[row], values[row], out[written], saved
            )
            if stop != DONE:
                return row, written, stop
        row += 1
        written += 1
    return row, written, DONE
