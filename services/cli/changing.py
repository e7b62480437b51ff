"""A stream whose world changes at a known event: loan applications, and who pays back. Pure.

Before the change an applicant's income and history decide; after it income counts for little and the debt for
much, as when rates go up. A share of the outcomes is chance, so that no model is right about all of them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

BEFORE = (1.6, 1.2, -0.6, 0.0, 0.4, 0.0)
AFTER = (-0.4, 0.8, -1.8, 0.9, 0.4, 0.0)
NAMES = ("income", "history", "debt", "age", "savings", "tenure")
CUSTOMERS = 400


@dataclass(frozen=True, slots=True)
class Change:
    """How many events, which is the first of the changed world, and the share of outcomes that is chance."""

    events: int = 8_000
    at: int = 4_000
    noise: float = 0.05
    seed: int = 7

    def __post_init__(self) -> None:
        if not 0 < self.at < self.events or not 0.0 <= self.noise < 0.5:
            raise ValueError("the change lies within the stream, and chance decides less than half")


def applications(change: Change) -> pl.DataFrame:
    """One row an application: time in seconds from the first, customer, six figures, and `repaid` 0 or 1.

    The same change gives the same rows.

    >>> frame = applications(Change(events=4, at=2))
    >>> frame.columns[:3], frame.columns[-1], frame.height
    (['second', 'customer', 'income'], 'repaid', 4)
    """
    random = np.random.default_rng(change.seed)
    figures = random.normal(size=(change.events, len(NAMES)))
    repaid = right_answers(figures, change)
    flipped = random.random(change.events) < change.noise
    return pl.DataFrame(
        {
            "second": np.arange(change.events, dtype=np.int64) * 60,
            "customer": [f"c{each:03d}" for each in random.integers(0, CUSTOMERS, change.events)],
            **{name: figures[:, place].round(4) for place, name in enumerate(NAMES)},
            "repaid": np.where(flipped, ~repaid, repaid).astype(np.int64),
        }
    )


def right_answers(figures: npt.NDArray[np.float64], change: Change) -> npt.NDArray[np.bool_]:
    """What the world of each row says, chance aside; `figures` float64[events, 6] in the order of the stream."""
    changed = np.arange(len(figures)) >= change.at
    score = np.where(changed, figures @ np.array(AFTER), figures @ np.array(BEFORE))
    answers: npt.NDArray[np.bool_] = score > 0
    return answers
