"""What sets off a retraining is a function of the ledger and the declaration, however the ledger is cut."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.retrainer.core.triggers import (
    END,
    Outcomes,
    Trigger,
    Watch,
    drift_trigger,
    follow_up,
    resolved,
    watch,
)
from services.retrainer.service import trigger_of_alarm, trigger_of_command
from shared.contracts.policies import RetrainPolicy

HOUR = 3_600_000


def policy(**more: Any) -> RetrainPolicy:
    return RetrainPolicy(**{"every_labels": 100, "min_rows": 50, **more})


def ledger(
    classes: Sequence[int], fresh: Sequence[bool] | None = None, step_ms: int = 1_000, begin: int = 0
) -> Outcomes:
    rows = len(classes)
    sequences = np.arange(begin, begin + rows, dtype=np.int64)
    known = np.ones(rows, np.bool_) if fresh is None else np.array(fresh, np.bool_)
    return Outcomes(sequences, sequences * step_ms, np.array(classes, np.int64), known)


def cut(rows: Outcomes, begin: int, end: int) -> Outcomes:
    return Outcomes(
        rows.sequences[begin:end], rows.order_times[begin:end], rows.classes[begin:end], rows.fresh[begin:end]
    )


def ids(rows: Outcomes, terms: RetrainPolicy) -> list[str]:
    return [each.id for each in watch(terms, Watch(), rows)[1]]


def test_first_and_every_so_many() -> None:
    rows = ledger([0, 1] * 160)
    assert ids(rows, policy()) == ["first-49", "labels-99", "labels-199", "labels-299"]


@pytest.mark.parametrize(
    ("what", "classes", "terms", "expected"),
    [
        ("no second class yet", [0] * 120, {}, []),
        ("the second class comes late", [0] * 70 + [1] * 10, {}, ["first-70"]),
        ("only commands", [0, 1] * 100, {"on": ["command"]}, []),
        ("only drift still warms up", [0, 1] * 100, {"on": ["drift"]}, ["first-49"]),
        ("both at one row", [0, 1] * 50, {"min_rows": 100}, ["first-99"]),
    ],
)
def test_cases(what: str, classes: list[int], terms: dict[str, Any], expected: list[str]) -> None:
    assert ids(ledger(classes), policy(**terms)) == expected, what


def test_shadows_and_revisions_do_not_count() -> None:
    fresh = [i % 2 == 0 for i in range(400)]
    classes = [(i // 2) % 2 for i in range(400)]
    assert ids(ledger(classes, fresh), policy()) == ["first-98", "labels-198", "labels-398"]


def test_a_schedule_goes_by_the_ledgers_time() -> None:
    terms = policy(on=["schedule"], schedule="0 * * * *")
    rows = ledger([0, 1] * 100, step_ms=HOUR // 30)
    said = watch(terms, Watch(), rows)[1]
    assert [each.id for each in said] == [
        "first-49",
        "cron-1970-01-01T02:00:00Z",
        "cron-1970-01-01T03:00:00Z",
        "cron-1970-01-01T04:00:00Z",
        "cron-1970-01-01T05:00:00Z",
        "cron-1970-01-01T06:00:00Z",
    ]
    assert said[1].sequence == 60


def test_scheduled_times_that_pass_at_once_count_as_the_last() -> None:
    terms = policy(on=["schedule"], schedule="0 * * * *")
    rows = ledger([0, 1] * 30)
    rows.order_times[55:] += 10 * HOUR
    assert ids(rows, terms) == ["first-49", "cron-1970-01-01T10:00:00Z"]


def test_a_time_just_short_of_the_hour_has_not_passed_it() -> None:
    terms = policy(on=["schedule"], schedule="0 * * * *")
    rows = ledger([0, 1] * 30)
    rows.order_times[55:] = HOUR - 500
    assert ids(rows, terms) == ["first-49"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_cuts_and_any_repeats_give_the_same_triggers(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 400))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    rows = Outcomes(
        np.arange(size, dtype=np.int64),
        rng.integers(0, 5 * HOUR, size),
        rng.integers(0, 3, size),
        rng.random(size) < 0.8,
    )
    terms = policy(schedule="*/20 * * * *", every_labels=37)
    whole, expected = watch(terms, Watch(), rows)
    state, said = Watch(), list[Trigger]()
    at = 0
    while at < size:
        begin = max(0, at - data.draw(st.integers(0, 20)))  # what was not acknowledged comes again
        end = data.draw(st.integers(at + 1, size))
        state, more = watch(terms, Watch.from_json(state.to_json()), cut(rows, begin, end))
        said += more
        at = end
    assert said == expected
    assert state == whole
    assert len({each.id for each in said}) == len(said)


def test_a_hole_in_the_ledger_is_an_error() -> None:
    with pytest.raises(ValueError, match="follows row"):
        watch(policy(), Watch(), ledger([0, 1], begin=1))


def alarm(sequence: int, name: str = "a") -> Trigger:
    return Trigger(name, "drift", sequence, 0, max(0, sequence - 50))


def test_an_alarm_close_behind_another_is_quiet() -> None:
    before = [alarm(1_000, "x"), Trigger("labels-1200", "labels", 1_200, 0)]
    assert drift_trigger(policy(), 500, alarm(1_400), before) == "quiet"
    assert drift_trigger(policy(), 500, alarm(900), before) == "quiet"
    assert drift_trigger(policy(), 500, alarm(1_500), before) == alarm(1_500)
    assert drift_trigger(policy(), 500, alarm(1_000, "x"), before) == alarm(1_000, "x")
    assert drift_trigger(policy(on=["labels"]), 500, alarm(9_000), before) == "undeclared"


def test_an_alarm_before_the_first_outcome_sets_off_nothing() -> None:
    """There is no row that its run could learn up to, now or ever."""
    early = trigger_of_alarm({"id": "x", "sequence": -1, "order_time": 3, "since_sequence": -1})
    assert early.sequence == -1
    assert drift_trigger(policy(), 500, early, []) == "rows.none"


def test_the_newest_alarm_is_followed_up_once_enough_is_known() -> None:
    before = [alarm(1_000, "x"), alarm(2_000, "y"), Trigger("labels-2100", "labels", 2_100, 0)]
    terms = policy(follow_up=250)
    assert follow_up(terms, 2_249, before) is None
    assert follow_up(terms, 2_250, before) == Trigger("again-y", "follow_up", 2_250, 0, 1_950)
    assert follow_up(terms, 9_000, before) == follow_up(terms, 2_250, before)
    assert follow_up(terms, 2_250, before[:1]) == Trigger("again-x", "follow_up", 1_250, 0, 950)
    assert follow_up(terms, 9_000, before[2:]) is None
    assert follow_up(policy(follow_up=0), 9_000, before) is None


def test_a_follow_up_keeps_no_later_alarm_quiet() -> None:
    again = Trigger("again-x", "follow_up", 1_250, 0, 950)
    assert drift_trigger(policy(), 500, alarm(1_500), [alarm(1_000, "x"), again]) == alarm(1_500)


def test_what_a_trigger_does_not_know_is_filled_in_once() -> None:
    asked = Trigger("c", "command", END, 5)
    assert resolved(asked, 77, 40) == Trigger("c", "command", 77, 5, 40)
    assert resolved(alarm(60), 77, 40) == alarm(60)
    assert Trigger.from_json(asked.to_json()) == asked


def test_alarms_and_commands_as_triggers() -> None:
    said = {"id": "f/d/s/9", "sequence": 9, "order_time": 3, "since_sequence": 4}
    assert trigger_of_alarm(said) == Trigger("f/d/s/9", "drift", 9, 3, 4)
    command = {"id": "c", "at": 5, "parameters": '{"sequence": 12, "since": 3}'}
    assert trigger_of_command(command) == Trigger("c", "command", 12, 5, 3)
    for odd in ("{}", "[]", "no json", '{"sequence": -4, "since": "x"}', '{"sequence": null}'):
        assert trigger_of_command({**command, "parameters": odd}) == Trigger("c", "command", END, 5, -1)
