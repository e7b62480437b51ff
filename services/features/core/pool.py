"""All memory of one unit's entities, as the kernels see it."""

from typing import NamedTuple

from services.features.core.borrow import borrowed
from services.features.core.plan import NEWEST, TIME, Plan
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
