"""One entity's life, its events by id, and the labels that wait for them.

An entity's rows START+BEGIN .. START+END-1 of the pool are its events, sorted by time and, within a time, by
arrival.
"""

from services.features.core.frames import count
from services.features.core.plan import (
    BEGIN,
    CAPACITY,
    END,
    FIRST_FRAME,
    FRAME,
    HELD,
    HI,
    LABELLED,
    LIVE,
    LO,
    NEWEST,
    PRESENT,
    START,
    TIME,
    Plan,
)
from services.features.core.pool import ATTACHED, HELD_USED, NEVER, USED, Pool, first_after
from services.features.core.tables import VALUE, find, remove
from services.features.core.tallies import NONE, of_label
from shared.kernels import kernel


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
