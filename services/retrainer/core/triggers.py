"""What sets off a retraining, decided from the ledger and the declaration alone, never from when it is asked.

Every trigger has an id and names the ledger position up to which it learns:

first-<sequence>    enough outcomes, of two classes at least, for a first model
labels-<sequence>   so many outcomes more
cron-<time>         the ledger's order time has passed a scheduled time (several passed at once count as the last)
<drift id>          an alarm that triggers, unless one shortly before it did
again-<drift id>    so many rows behind that alarm, when there are more outcomes of the world as it is now
<command id>        a `train` command
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from croniter import croniter
from pydantic import JsonValue

from shared.contracts.policies import RetrainPolicy

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Kind = Literal["first", "labels", "drift", "follow_up", "schedule", "command"]
END = -1
"""The ledger's end when the trigger is taken up; what it was then is written down with the run."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """One retraining to do: `sequence` is the last ledger row that it may see, `at` an order time in ms."""

    id: str
    kind: Kind
    sequence: int
    at: int
    since: int = -1
    """Where a drift is thought to have begun, as a sequence; -1 where the trigger knows of none."""

    def to_json(self) -> dict[str, JsonValue]:
        """As runs.v1 and the proposal carry it."""
        return {
            "id": self.id,
            "kind": self.kind,
            "sequence": self.sequence,
            "at": self.at,
            "since": self.since,
        }

    @staticmethod
    def from_json(said: dict[str, Any]) -> "Trigger":
        """What `to_json` gave."""
        return Trigger(said["id"], said["kind"], said["sequence"], said["at"], said["since"])


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Rows of the ledger in order, as far as triggers look: all of one length.

    `fresh` rows are an event's first outcome for the version that answered: no shadow, no revision.
    """

    sequences: Ints
    order_times: Ints
    classes: Ints
    fresh: Mask


@dataclass(frozen=True, slots=True)
class Watch:
    """How far the ledger has been folded, and what has been seen."""

    sequence: int = -1
    outcomes: int = 0
    seen: tuple[int, ...] = ()
    started: bool = False
    order_time: int = -1
    scheduled: int = -1
    """The last scheduled time that has passed, in ms; -1 before the first row."""

    def to_json(self) -> dict[str, JsonValue]:
        """As it is kept between two starts."""
        return {
            "sequence": self.sequence,
            "outcomes": self.outcomes,
            "seen": list(self.seen),
            "started": self.started,
            "order_time": self.order_time,
            "scheduled": self.scheduled,
        }

    @staticmethod
    def from_json(said: dict[str, Any]) -> "Watch":
        """What `to_json` gave."""
        return Watch(**{**said, "seen": tuple(said["seen"])})


def watch(policy: RetrainPolicy, state: Watch, rows: Outcomes) -> tuple[Watch, list[Trigger]]:
    """Fold rows of the ledger; the triggers they raise, by sequence. Rows that were folded before are passed over.

    ValueError where rows are missing between `state` and the first new one.
    """
    new = rows.sequences > state.sequence
    if not new.any():
        return state, []
    if not new.all():
        rows = Outcomes(rows.sequences[new], rows.order_times[new], rows.classes[new], rows.fresh[new])
    if int(rows.sequences[0]) != state.sequence + 1:
        raise ValueError(f"row {int(rows.sequences[0])} of the ledger follows row {state.sequence}")
    counts = state.outcomes + np.cumsum(rows.fresh)
    clock = np.maximum.accumulate(np.maximum(rows.order_times, state.order_time))
    begin = _begin(policy, state, rows, counts)
    raised = [] if state.started or begin is None else [_at(rows, clock, begin, "first")]
    started_at = 0 if state.started else len(counts) if begin is None else begin + 1
    if "labels" in policy.on:
        due = np.flatnonzero(rows.fresh & (counts % policy.every_labels == 0))
        raised += [_at(rows, clock, int(row), "labels") for row in due[due >= started_at]]
    scheduled, crons = _schedule(policy, state, rows, clock)
    raised += [trigger for row, trigger in crons if row >= started_at]
    after = Watch(
        sequence=int(rows.sequences[-1]),
        outcomes=int(counts[-1]),
        seen=tuple(sorted({*state.seen, *np.unique(rows.classes[rows.fresh]).tolist()})),
        started=state.started or begin is not None,
        order_time=int(clock[-1]),
        scheduled=scheduled,
    )
    return after, sorted(raised, key=lambda trigger: trigger.sequence)


def _at(rows: Outcomes, clock: Ints, row: int, kind: Literal["first", "labels"]) -> Trigger:
    sequence = int(rows.sequences[row])
    return Trigger(f"{kind}-{sequence}", kind, sequence, int(clock[row]))


def _begin(policy: RetrainPolicy, state: Watch, rows: Outcomes, counts: Ints) -> int | None:
    """The row at which there is enough for a first model; None where there is not, or nobody wants one."""
    if state.started or set(policy.on) <= {"command"}:
        return None
    values, firsts = np.unique(rows.classes[rows.fresh], return_index=True)
    places = np.flatnonzero(rows.fresh)[firsts]
    news = sorted(int(p) for value, p in zip(values, places, strict=True) if int(value) not in state.seen)
    wanted = max(0, 2 - len(state.seen))
    enough = np.flatnonzero(counts >= policy.min_rows)
    if len(news) < wanted or not len(enough):
        return None
    return max([int(enough[0]), *news[:wanted]])


def _schedule(
    policy: RetrainPolicy, state: Watch, rows: Outcomes, clock: Ints
) -> tuple[int, list[tuple[int, Trigger]]]:
    """The last scheduled time passed, and a trigger at each row that passed one."""
    if policy.schedule is None or "schedule" not in policy.on:
        return state.scheduled, []
    raised: list[tuple[int, Trigger]] = []
    passed = state.scheduled
    if passed < 0:
        passed = _before(policy.schedule, int(clock[0]))
    while True:
        row = int(np.searchsorted(clock, _after(policy.schedule, passed)))
        if row == len(clock):
            return passed, raised
        passed = _before(policy.schedule, int(clock[row]))
        name = datetime.fromtimestamp(passed / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        raised.append((row, Trigger(f"cron-{name}", "schedule", int(rows.sequences[row]), int(clock[row]))))


def _before(schedule: str, at: int) -> int:
    """The newest scheduled time up to `at`, in ms."""
    return int(croniter(schedule, at // 1000 + 1).get_prev(float)) * 1000


def _after(schedule: str, at: int) -> int:
    return int(croniter(schedule, at // 1000).get_next(float)) * 1000


def drift_trigger(
    policy: RetrainPolicy, quiet: int, alarm: Trigger, before: Sequence[Trigger]
) -> Trigger | str:
    """The alarm as a trigger, or why it sets off nothing: `undeclared`, `rows.none` where it came before the first
    outcome, or `quiet` behind another alarm.

    `before` are the alarms that did set off something, in the order of drift.v1.
    """
    if "drift" not in policy.on:
        return "undeclared"
    if alarm.sequence < 0:
        return "rows.none"
    last = next((each for each in reversed(before) if each.kind == "drift"), None)
    if last is not None and last.id != alarm.id and alarm.sequence < last.sequence + quiet:
        return "quiet"
    return alarm


def follow_up(policy: RetrainPolicy, until: int, before: Sequence[Trigger]) -> Trigger | None:
    """The second training after the newest alarm that set off one, if the ledger has come so far by `until`.

    Its `at` is the alarm's. An alarm's own training knows a few outcomes of the new world, too few to learn from.
    `before` are the triggers taken up, in their order.
    """
    last = next((each for each in reversed(before) if each.kind == "drift"), None)
    if last is None or not policy.follow_up or last.sequence + policy.follow_up > until:
        return None
    return Trigger(f"again-{last.id}", "follow_up", last.sequence + policy.follow_up, last.at, last.since)


def unheld(trigger: Trigger, end: int) -> str:
    """What to do where the ledger does not hold the rows that the trigger names; else empty.

    `end` is the newest sequence, -1 for none.
    """
    if end < 0:
        return "the ledger has no outcome yet; ask again when there are some"
    if max(trigger.sequence, trigger.since) > end:
        return f"the ledger ends at {end}; ask for a sequence and a since up to that"
    return ""


def resolved(trigger: Trigger, end: int, since: int) -> Trigger:
    """The trigger with the ledger's end where it asked for it, and a drift's beginning where it knew none."""
    sequence = end if trigger.sequence == END else trigger.sequence
    return replace(trigger, sequence=sequence, since=trigger.since if trigger.since >= 0 else since)
