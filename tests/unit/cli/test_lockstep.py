"""Where a replay in lockstep is cut, and who is said to be behind."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from services.cli.lockstep import cut_steps, read_gauge, services_of
from services.cli.script import Script, write_script
from services.cli.standstill import behind
from shared.contracts.pipeline import find_pipeline, load_pipeline
from shared.errors import Refused
from shared.runtime.merge import EVENT

FRAUD = load_pipeline(find_pipeline("fraud"))


def rows(number: int) -> pl.DataFrame:
    """Payments, one a second."""
    return pl.DataFrame(
        {
            "TRANSACTION_ID": list(range(number)),
            "TX_TIME_SECONDS": list(range(number)),
            "CUSTOMER_ID": ["1"] * number,
            "TERMINAL_ID": ["7"] * number,
            "TX_AMOUNT": [1.5] * number,
            "TX_FRAUD": [0] * number,
        }
    )


def script(number: int, labels_after_ms: int) -> Script:
    return write_script(rows(number), FRAUD, labels_after_ms)


def events_of(whole: Script, steps: list[tuple[int, int]]) -> list[int]:
    return [int(np.count_nonzero(whole.kind[begin:end] == EVENT)) for begin, end in steps]


@pytest.mark.parametrize(
    ("number", "delay", "size", "events"),
    [
        (10, 2_000, 5, [5, 5]),
        (10, 2_000, 4, [4, 4, 2]),
        (10, 2_000, 100, [10]),
        (6, 10_000, 4, [4, 2, 0, 0]),
        (6, 10_000, 2, [2, 2, 2, 0, 0, 0]),
    ],
)
def test_a_step_holds_so_many_events_and_the_labels_up_to_the_next(
    number: int, delay: int, size: int, events: list[int]
) -> None:
    whole = script(number, delay)
    steps = cut_steps(whole, size)
    assert events_of(whole, steps) == events
    assert steps[0][0] == 0
    assert steps[-1][1] == len(whole)
    assert all(one[1] == other[0] for one, other in pairwise(steps))
    assert all(whole.kind[begin] == EVENT for begin, end in steps if events_of(whole, [(begin, end)])[0])


def test_a_step_holds_something() -> None:
    with pytest.raises(Refused, match="at least one event"):
        cut_steps(script(3, 1_000), 0)


def test_gaps_behind_the_newest_record_are_nothing_to_read() -> None:
    newest = {("t", 0): 41, ("t", 1): -1}
    assert behind({"g": {("t", 0): 42, ("t", 1): 0}}, newest, ["g"]) == []
    assert behind({"g": {("t", 0): 57, ("t", 1): 12}}, newest, ["g"]) == []
    (late,) = behind({"g": {("t", 0): 41, ("t", 1): 0}, "other": {("t", 0): 3}}, newest, ["g"])
    assert str(late) == "g stands at offset 41 of t/0, whose newest record is 41"


def test_all_that_is_declared_must_rest() -> None:
    services = services_of(FRAUD)
    assert services[:6] == [
        *("ingest", "features-customer", "features-terminal", "inference"),
        *("feedback-join", "feedback-score"),
    ]


def test_a_gauge_is_read_by_its_whole_name() -> None:
    text = "millrace_models_offset_other 3.0\nmillrace_models_offset -1.0\n"
    assert read_gauge(text, "millrace_models_offset") == -1
    assert read_gauge("", "millrace_models_offset") == -1
