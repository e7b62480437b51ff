"""Room in the pool: more rows for an entity, letting go of what nothing can reach, and moving house."""

from services.features.core.entity import close_entity, drop_held
from services.features.core.plan import (
    BEGIN,
    CAPACITY,
    END,
    FIRST_FRAME,
    FRAME,
    HELD,
    HI,
    LIVE,
    LO,
    NEWEST,
    START,
    Plan,
)
from services.features.core.pool import (
    CODES_USED,
    EXPIRED,
    HELD_SWEPT,
    NEED,
    NEVER,
    SWEPT,
    TOP,
    UNIT_NEWEST,
    Pool,
    borrowed_plan,
    borrowed_pool,
    floor_of,
)
from shared.codec.batch import Ints
from shared.kernels import kernel

_LEAST_ROWS = 4


@kernel
def move(rows: Ints, own: Ints, to: int, frames: int) -> None:
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
def has_row(plan: Plan, pool: Pool, entity: int) -> bool:
    """Whether there is room for one more row of the entity, after making it if possible."""
    own = pool.entities[entity]
    if own[END] < own[CAPACITY]:
        return True
    if 0 < own[CAPACITY] <= 4 * own[BEGIN]:
        move(pool.rows, own, own[START], plan.frames.shape[0])
        return True
    wanted = max(2 * own[CAPACITY], _LEAST_ROWS)
    if pool.state[TOP] + wanted > pool.rows.shape[0]:
        pool.state[NEED] = wanted
        return False
    move(pool.rows, own, pool.state[TOP], plan.frames.shape[0])
    own[CAPACITY] = wanted
    pool.state[TOP] += wanted
    return True


@kernel
def has_codes(plan: Plan, pool: Pool, entity: int) -> bool:
    """Whether all codes that one event can let enter the frames fit the table."""
    own = pool.entities[entity]
    wanted = pool.state[CODES_USED]
    for d in range(plan.distincts.shape[0]):
        place = FIRST_FRAME + FRAME * plan.distincts[d, 0]
        wanted += own[END] - (own[place + HI] - own[place + LO]) + 1
    pool.state[NEED] = wanted
    return bool(2 * wanted <= pool.codes.shape[0])


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
