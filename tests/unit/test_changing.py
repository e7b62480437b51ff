"""The stream of the demonstration: the same each time, and truly another one behind the change."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from services.cli.changing import NAMES, Change, applications


def accuracy(model: LogisticRegression, begin: int, end: int, change: Change) -> float:
    rows = applications(change)[begin:end]
    return float(model.score(rows.select(NAMES).to_numpy(), rows["repaid"].to_numpy()))


def test_the_same_change_gives_the_same_rows() -> None:
    assert applications(Change(events=500, at=200)).equals(applications(Change(events=500, at=200)))
    assert not applications(Change(events=500, at=200)).equals(
        applications(Change(events=500, at=200, seed=8))
    )


def test_what_was_learnt_before_is_wrong_afterwards() -> None:
    change = Change()
    rows = applications(change)[: change.at - 1_000]
    model = LogisticRegression().fit(rows.select(NAMES).to_numpy(), rows["repaid"].to_numpy())
    assert accuracy(model, change.at - 1_000, change.at, change) > 0.9
    assert accuracy(model, change.at, change.events, change) < 0.7


def test_chance_bounds_what_can_be_right() -> None:
    change = Change(events=20_000, at=19_999, noise=0.2)
    rows = applications(change)
    model = LogisticRegression().fit(rows.select(NAMES).to_numpy(), rows["repaid"].to_numpy())
    assert np.isclose(accuracy(model, 0, change.events, change), 0.8, atol=0.02)


@pytest.mark.parametrize("wrong", [{"at": 0}, {"at": 8_000}, {"noise": 0.5}])
def test_a_change_outside_of_the_stream_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="within the stream"):
        Change(**wrong)  # type: ignore[arg-type]
