"""The kernel that folds a batch of rows, and what it does for each event and label."""

import math

import numpy as np

from services.features.core.borrow import prefetch
from services.features.core.entity import (
    ATTACHED,
    CODES_USED,
    DUPLICATES,
    EXPIRED,
    HELD_SWEPT,
    HELD_USED,
    LATE,
    NEED,
    NEVER,
    SWEPT,
    TOO_LATE,
    TOP,
    UNIT_NEWEST,
    Pool,
    advance,
    advance_all,
    attach,
    borrowed_plan,
    borrowed_pool,
    clear,
    close_entity,
    drop_held,
    event_row,
    first_after,
    floor_of,
    lend_frames,
    open_entity,
    return_frames,
    shift_frames,
    take_held,
)
from services.features.core.monoids import Triple, scaled_deviation, scaled_total
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
    OUT_COUNT,
    OUT_PLAIN,
    OUT_RATIO,
    OUT_SINCE,
    OUT_STD,
    OUT_SUM,
    START,
    TIME,
    Plan,
)
from services.features.core.spans import spanned
from services.features.core.tables import find, put
from services.features.core.tallies import NONE
from shared.codec.batch import Bytes, Floats, Ints
from shared.kernels import kernel

# Why the fold stopped: at the end, or for want of room in one of the pool's parts.
DONE, NEEDS_ROWS, NEEDS_CODES, NEEDS_HELD = range(4)
_LEAST_ROWS = 4
# So many rows ahead an entity's row, and then its events, are asked for.
_FAR, _NEAR = 12, 6


@kernel
def _since_last(rows: Ints, row: int, lo: int, hi: int) -> float:
    """Seconds back to the newest other row of lo..hi-1, NaN when there is none."""
    last = hi - 2 if hi - 1 == row else hi - 1
    return (rows[row, TIME] - rows[last, TIME]) / 1000.0 if last >= lo else math.nan


@kernel
def _of_values(kind: int, count: int, triple: Triple, values: Floats, lo: int, hi: int, column: int) -> float:
    """The reading of a monoid over rows lo..hi-1 with `count` values; NaN when nothing was aggregated."""
    a, b, c = triple
    if kind == OUT_PLAIN:
        return a
    if kind == OUT_STD:
        if a == 0.0:
            return math.nan
        deviation = math.sqrt(c / a) if c >= 0.0 else math.nan
        return deviation if math.isfinite(deviation) else scaled_deviation(values, lo, hi, column)
    if count == 0:
        return math.nan
    parts = 1.0 if kind == OUT_SUM else float(count)
    total = (a + b) / parts
    return total if math.isfinite(total) else scaled_total(values, lo, hi, column, parts)


@kernel
def _of_counts(kind: int, own: Ints, a: int, b: int, size: int) -> float:
    """The reading of counts in a window of `size` rows; NaN when there is nothing to count."""
    if kind == OUT_COUNT:
        return float(size) if size > 0 else math.nan
    if kind == OUT_RATIO:
        parts = size if b < 0 else own[b]
        return own[a] / parts if parts > 0 else math.nan
    return float(own[a]) if own[b] > 0 else math.nan


@kernel
def _emit(
    outputs: Ints,
    monoids: Ints,
    defaults: Floats,
    rows: Ints,
    values: Floats,
    own: Ints,
    row: int,
    out: Floats,
) -> None:
    """Write the features of one event from where the frames stand."""
    base = own[START]
    for output in range(outputs.shape[0]):
        kind, a, b = outputs[output, 0], outputs[output, 2], outputs[output, 3]
        place = FIRST_FRAME + FRAME * outputs[output, 1]
        lo, hi = own[place + LO], own[place + HI]
        if kind <= OUT_RATIO:
            result = _of_counts(kind, own, a, b, hi - lo)
        elif kind == OUT_SINCE:
            result = _since_last(rows, row, base + lo, base + hi)
        else:
            triple = spanned(monoids, a, values, base, own, place)
            count = own[b] if b > 0 else 0
            result = _of_values(kind, count, triple, values, base + lo, base + hi, monoids[a, 2])
        out[output] = defaults[output] if math.isnan(result) else result


@kernel
def _emitted(plan: Plan, pool: Pool, entity: int, row: int, out: Floats) -> None:
    own = pool.entities[entity]
    _emit(plan.outputs, plan.monoids, plan.defaults, pool.rows, pool.values, own, row, out)


@kernel
def _move(rows: Ints, own: Ints, to: int, frames: int) -> None:
    """Move an entity's rows, which may overlap, to `to` on, without those that are gone."""
    begin, size = own[BEGIN], own[END] - own[BEGIN]
    for at in range(size):
        for word in range(rows.shape[1]):
            rows[to + at, word] = rows[own[START] + begin + at, word]
    for word in range(FIRST_FRAME, FIRST_FRAME + FRAME * frames):
        own[word] = max(own[word] - begin, 0)
    own[START] = to
    own[BEGIN] = 0
    own[END] = size


@kernel
def _has_row(plan: Plan, pool: Pool, entity: int) -> bool:
    """Whether there is room for one more row of the entity, after making it if possible."""
    own = pool.entities[entity]
    if own[END] < own[CAPACITY]:
        return True
    if 0 < own[CAPACITY] <= 4 * own[BEGIN]:
        _move(pool.rows, own, own[START], plan.frames.shape[0])
        return True
    wanted = max(2 * own[CAPACITY], _LEAST_ROWS)
    if pool.state[TOP] + wanted > pool.rows.shape[0]:
        pool.state[NEED] = wanted
        return False
    _move(pool.rows, own, pool.state[TOP], plan.frames.shape[0])
    own[CAPACITY] = wanted
    pool.state[TOP] += wanted
    return True


@kernel
def _has_codes(plan: Plan, pool: Pool, entity: int) -> bool:
    """Whether all codes that one event can let enter the frames fit the table."""
    own = pool.entities[entity]
    wanted = pool.state[CODES_USED]
    for d in range(plan.distincts.shape[0]):
        place = FIRST_FRAME + FRAME * plan.distincts[d, 0]
        wanted += own[END] - (own[place + HI] - own[place + LO]) + 1
    pool.state[NEED] = wanted
    return bool(2 * wanted <= pool.codes.shape[0])


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
    if not _has_row(plan, pool, entity):
        return NEEDS_ROWS
    if plan.distincts.shape[0] > 0 and not _has_codes(plan, pool, entity):
        return NEEDS_CODES
    if time >= newest:
        row = own[START] + own[END]
        own[END] += 1
        own[NEWEST] = time
        _write_row(plan, pool, entity, row, time, ident, codes, values)
        advance_all(plan, pool, entity, time, floor, saved)
        _emitted(plan, pool, entity, row, out)
    else:
        row = _insert_late(plan, pool, entity, time, ident, codes, values, floor, saved)
        lend_frames(plan, pool, entity, time, floor, saved)
        _emitted(plan, pool, entity, row, out)
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
        _move(rows, own, own[START], frames)
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
            _emit(
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


@kernel
def sweep(plan: Plan, pool: Pool, slots: int, steps: int) -> None:
    """Look at the next `steps` entities and held labels, and let go of those that nothing can reach."""
    plan, pool = borrowed_plan(plan), borrowed_pool(pool)
    state = pool.state
    for _ in range(min(steps, pool.held.shape[0])):
        at = state[HELD_SWEPT] & (pool.held.shape[0] - 1)
        state[HELD_SWEPT] = at + 1
        if pool.held[at, 0] != 0 and pool.held[at, 1] <= floor_of(plan, pool, pool.held[at, 0] - 1):
            state[EXPIRED] += 1
            drop_held(plan, pool, at)
    gone = max(state[UNIT_NEWEST] - plan.unit_horizon, NEVER)
    for _ in range(min(steps, slots)):
        at = state[SWEPT] if state[SWEPT] < slots else 0
        state[SWEPT] = at + 1
        own = pool.entities[at]
        if own[LIVE] and own[HELD] == 0 and own[NEWEST] <= gone:
            close_entity(plan, pool, at)


@kernel
def rebuild(plan: Plan, pool: Pool, slots: int, target: Ints) -> None:
    """Copy all rows that are not gone into `target`, half as much room again for each entity."""
    top = 0
    for entity in range(slots):
        own = pool.entities[entity]
        if not own[LIVE]:
            continue
        size = own[END] - own[BEGIN]
        for at in range(size):
            target[top + at] = pool.rows[own[START] + own[BEGIN] + at]
        for frame in range(plan.frames.shape[0]):
            place = FIRST_FRAME + FRAME * frame
            for word in range(FRAME):
                own[place + word] = max(own[place + word] - own[BEGIN], 0)
        own[START] = top
        own[BEGIN] = 0
        own[END] = size
        own[CAPACITY] = size + (size >> 1) if size else 0
        top += own[CAPACITY]
    pool.state[TOP] = top
