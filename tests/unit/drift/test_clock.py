"""The ledger's clock: what was known at a time is a function of the rows, not of when one asks."""

import numpy as np
import pytest

from services.drift.core.clock import MEMORY, Clock

TIMES = np.array([10, 20, 15, 20, 40])


def clock(*cuts: int) -> Clock:
    """Sequences 0, 2, 4, 6, 8 at `TIMES`, given in parts."""
    made = Clock()
    for part in np.split(np.arange(len(TIMES)), cuts):
        made.step(2 * part, TIMES[part])
    return made


@pytest.mark.parametrize(
    ("time", "newest", "passed"),
    [
        (9, -1, True),
        (10, 0, True),
        (19, 0, True),
        (20, 6, True),
        (39, 6, True),
        (40, 8, False),
        (99, 8, False),
    ],
)
@pytest.mark.parametrize("cuts", [(), (2,), (1, 2, 3, 4)])
def test_the_newest_row_up_to_a_time(cuts: tuple[int, ...], time: int, newest: int, passed: bool) -> None:
    made = clock(*cuts)
    assert (made.newest(time), made.passed(time)) == (newest, passed)


def test_before_any_row_nothing_is_known() -> None:
    assert (Clock().newest(5), Clock().passed(5)) == (-1, False)
    assert (Clock(7).newest(5), Clock(7).passed(5)) == (7, False)


def test_it_goes_on_from_its_state() -> None:
    whole, again = clock(), Clock()
    again.load(clock().state())
    for each in (whole, again):
        each.step(np.array([9]), np.array([12]))
    assert again.newest(40) == whole.newest(40) == 9


def test_a_time_beyond_memory_is_before_what_is_remembered() -> None:
    made = Clock()
    made.step(np.arange(MEMORY + 10), np.arange(MEMORY + 10))
    assert made.newest(3) == 9
    assert made.newest(10) == 10
