"""The join's rules, row by row along accepted.v1: what each label, event and passing of time brings about.

The book's rows (`SLOT_*`), the labels that wait for their event (`EARLY_*`) and a few marks are plain int64
arrays; see `Book`. The walk stops at the first row that needs an answer which is not there yet.
"""

from typing import NamedTuple

from shared.codec.batch import Ints
from shared.kernels import kernel
from shared.runtime.merge import EVENT, IDLE, LABEL

# Columns of a slot: one event, its vector and where its shadows are.
(
    OFFSET,
    HAS,
    ORDER,
    IDENT,
    EVENT_TIME,
    KEY,
    HASH,
    VECTOR_OFFSET,
    WANTED,
    SEEN,
    FIRST,
    LAST,
    STATE,
    CLASS,
    SLOT,
) = range(15)
HAS_EVENT, HAS_VECTOR, HAS_ANSWER = 1, 2, 4
# Columns of an answer; those of the prediction stand behind the slot's own.
(
    A_OFFSET,
    A_LABEL,
    A_CLASS,
    A_NAME,
    A_VERSION,
    A_DIGEST,
    A_ROLE,
    A_REGISTRY,
    A_HASH,
    ANSWER,
) = range(10)
# What is known of an event's outcome.
OPEN, LABELED, DEFAULTED, EXPIRED, UNPREDICTED, REPEATED = range(6)
# Columns of a label that waits for its event.
E_TIME, E_IDENT, E_CLASS, E_CORRECTS, E_SOURCE, E_OFFSET, E_NEXT, E_ALIVE, E_ROW, EARLY = range(10)
# Marks of the walk.
QUEUE_HEAD, QUEUE_TAIL, EARLY_HEAD, EARLY_TAIL, CLOCK, IS_IDLE, ANSWERED, MARKS = range(8)
# What a row comes to; the first four are the symbols of LabelKind.
(
    SAYS_LABEL,
    SAYS_MISSING,
    SAYS_LATE,
    SAYS_CORRECTION,
    DUPLICATE,
    REPEAT,
    CONFLICT,
    ORPHAN,
    STALE,
    NO_PREDICTION,
    NO_CLASS,
) = range(11)
# Columns of what the walk says; `REF` is a row, or ~i for early label i.
ACTION, OF_SLOT, SAID_CLASS, PREVIOUS, TIME, REF, SAID = range(7)
# How a walk ends.
DONE, BLOCKED, MISMATCH = 0, 1, 2
_READY, _WAIT, _NEVER, _WRONG = 0, 1, 2, 3


class Rules(NamedTuple):
    """Durations in milliseconds; `missing` is the class of an event without label, -1 for none."""

    horizon: int
    hold: int
    missing: int


class Rows(NamedTuple):
    """Rows of accepted.v1 as columns; `slot` means something for events, the last five for labels."""

    kind: Ints
    time: Ints
    ident: Ints
    slot: Ints
    outcome: Ints
    corrects: Ints
    source: Ints
    offset: Ints
    event_time: Ints


class State(NamedTuple):
    """The book as the kernel sees it: `owner` and `first_early` by event id number, -1 for none."""

    slots: Ints
    owner: Ints
    first_early: Ints
    early: Ints
    queue: Ints
    marks: Ints


@kernel
def _ready(state: State, slot: int) -> int:
    own = state.slots[slot]
    if own[HAS] & HAS_VECTOR == 0:
        return _WAIT
    if own[HAS] & HAS_ANSWER == 0:
        # Predictions follow the order of the vectors: what was passed over will not be answered.
        return _NEVER if state.marks[ANSWERED] > own[VECTOR_OFFSET] else _WAIT
    if own[SEEN] < own[WANTED]:
        return _WAIT
    return _READY if own[HASH] == own[SLOT + A_HASH] else _WRONG


@kernel
def _say(
    said: Ints, count: int, action: int, slot: int, outcome: int, previous: int, time: int, ref: int
) -> int:
    said[count, ACTION] = action
    said[count, OF_SLOT] = slot
    said[count, SAID_CLASS] = outcome
    said[count, PREVIOUS] = previous
    said[count, TIME] = time
    said[count, REF] = ref
    return count + 1


@kernel
def _apply(
    state: State, said: Ints, count: int, slot: int, outcome: int, corrects: int, time: int, ref: int
) -> int:
    """A label of an event whose answer is known or known not to come."""
    own = state.slots[slot]
    before = own[CLASS]
    if own[STATE] == OPEN:
        if _ready(state, slot) == _NEVER:
            own[STATE] = UNPREDICTED
        else:
            own[STATE], own[CLASS] = LABELED, outcome
            return _say(said, count, SAYS_LABEL, slot, outcome, -1, time, ref)
    if own[STATE] == UNPREDICTED:
        return _say(said, count, NO_PREDICTION, slot, outcome, -1, time, ref)
    if own[STATE] == DEFAULTED or own[STATE] == EXPIRED:
        own[STATE], own[CLASS] = LABELED, outcome
        return _say(said, count, SAYS_LATE, slot, outcome, before, time, ref)
    if outcome == before:
        return _say(said, count, DUPLICATE, slot, outcome, before, time, ref)
    if corrects:
        own[CLASS] = outcome
        return _say(said, count, SAYS_CORRECTION, slot, outcome, before, time, ref)
    return _say(said, count, CONFLICT, slot, outcome, before, time, ref)


@kernel
def _expire(rules: Rules, state: State, now: int, said: Ints, count: int) -> tuple[int, int]:
    """Events whose horizon has passed before `now`, in their order."""
    marks = state.marks
    while marks[QUEUE_HEAD] < marks[QUEUE_TAIL]:
        slot = state.queue[marks[QUEUE_HEAD]]
        own = state.slots[slot]
        due = own[ORDER] + rules.horizon
        if due >= now:
            break
        if own[STATE] == OPEN:
            ready = _ready(state, slot)
            if ready == _WAIT:
                return count, BLOCKED
            if ready == _WRONG:
                return slot, MISMATCH
            if ready == _NEVER:
                own[STATE] = UNPREDICTED
            else:
                own[STATE] = DEFAULTED if rules.missing >= 0 else EXPIRED
                own[CLASS] = rules.missing
                count = _say(said, count, SAYS_MISSING, slot, rules.missing, -1, due, -1)
        marks[QUEUE_HEAD] += 1
    return count, DONE


@kernel
def _drop_orphans(rules: Rules, state: State, now: int, said: Ints, count: int) -> int:
    """Labels that have waited too long for their event."""
    marks = state.marks
    while marks[EARLY_HEAD] < marks[EARLY_TAIL]:
        at = marks[EARLY_HEAD]
        own = state.early[at]
        if own[E_TIME] + rules.hold >= now:
            break
        if own[E_ALIVE]:
            own[E_ALIVE] = 0
            state.first_early[own[E_IDENT]] = own[E_NEXT]
            count = _say(said, count, ORPHAN, -1, own[E_CLASS], -1, own[E_TIME] + rules.hold, ~at)
        marks[EARLY_HEAD] += 1
    return count


@kernel
def _take_event(rules: Rules, state: State, rows: Rows, row: int, said: Ints, count: int) -> tuple[int, int]:
    """An event, and the labels that have waited for it."""
    slot, ident, now = rows.slot[row], rows.ident[row], rows.time[row]
    own = state.slots[slot]
    owner = state.owner[ident]
    repeated = owner >= 0 and owner != slot and state.slots[owner, ORDER] + rules.horizon + rules.hold >= now
    early = state.first_early[ident]
    if not repeated and early >= 0:
        ready = _ready(state, slot)
        if ready == _WAIT:
            return count, BLOCKED
        if ready == _WRONG:
            return slot, MISMATCH
    own[HAS] |= HAS_EVENT
    own[ORDER], own[IDENT], own[OFFSET] = now, ident, own[OFFSET]
    own[STATE] = REPEATED if repeated else OPEN
    own[CLASS] = -1
    state.queue[state.marks[QUEUE_TAIL]] = slot
    state.marks[QUEUE_TAIL] += 1
    if repeated:
        return _say(said, count, REPEAT, slot, -1, -1, now, row), DONE
    state.owner[ident] = slot
    while early >= 0:
        held = state.early[early]
        held[E_ALIVE] = 0
        count = _apply(state, said, count, slot, held[E_CLASS], held[E_CORRECTS], now, ~early)
        early = held[E_NEXT]
    state.first_early[ident] = -1
    return count, DONE


@kernel
def _hold(state: State, rows: Rows, row: int) -> None:
    """Keep a label whose event has not come."""
    at = state.marks[EARLY_TAIL]
    state.marks[EARLY_TAIL] += 1
    own = state.early[at]
    own[E_TIME], own[E_IDENT], own[E_CLASS] = rows.time[row], rows.ident[row], rows.outcome[row]
    own[E_CORRECTS], own[E_SOURCE], own[E_OFFSET] = rows.corrects[row], rows.source[row], rows.offset[row]
    own[E_NEXT], own[E_ALIVE], own[E_ROW] = -1, 1, row
    last = state.first_early[rows.ident[row]]
    if last < 0:
        state.first_early[rows.ident[row]] = at
        return
    while state.early[last, E_NEXT] >= 0:
        last = state.early[last, E_NEXT]
    state.early[last, E_NEXT] = at


@kernel
def _take_label(rules: Rules, state: State, rows: Rows, row: int, said: Ints, count: int) -> tuple[int, int]:
    """A label: of an event that is known, too old, or not there yet."""
    now, outcome = rows.time[row], rows.outcome[row]
    if outcome < 0:
        return _say(said, count, NO_CLASS, -1, -1, -1, now, row), DONE
    slot = state.owner[rows.ident[row]]
    kept = rules.horizon + rules.hold
    if slot < 0 or state.slots[slot, ORDER] + kept < now:
        if rows.event_time[row] + kept < now:
            return _say(said, count, STALE, -1, outcome, -1, now, row), DONE
        _hold(state, rows, row)
        return count, DONE
    if state.slots[slot, STATE] == OPEN:
        ready = _ready(state, slot)
        if ready == _WAIT:
            return count, BLOCKED
        if ready == _WRONG:
            return slot, MISMATCH
    return _apply(state, said, count, slot, outcome, rows.corrects[row], now, row), DONE


@kernel
def walk(rules: Rules, state: State, rows: Rows, said: Ints) -> tuple[int, int, int]:
    """Go along the rows as far as the answers reach.

    Writes to `said` what came of them; gives how many of the rows are done with, how many things were said,
    and how it ended. After MISMATCH the second number is the slot whose vector is not its prediction's.
    """
    count, end = 0, DONE
    marks = state.marks
    for row in range(rows.kind.size):
        now = rows.time[row]
        count, end = _expire(rules, state, now, said, count)
        if end != DONE:
            return row, count, end
        count = _drop_orphans(rules, state, now, said, count)
        if rows.kind[row] == EVENT:
            count, end = _take_event(rules, state, rows, row, said, count)
        elif rows.kind[row] == LABEL:
            count, end = _take_label(rules, state, rows, row, said, count)
        if end != DONE:
            return row, count, end
        marks[CLOCK] = max(marks[CLOCK], now)
        marks[IS_IDLE] = 1 if rows.kind[row] == IDLE else 0
    return rows.kind.size, count, DONE
