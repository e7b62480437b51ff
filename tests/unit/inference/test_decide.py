import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.core.decide import ClassNames, Decisions

PROBABILITY = st.floats(0, 1)


@given(
    st.lists(st.floats(0, 1, exclude_min=True), unique=True, max_size=5), st.lists(PROBABILITY, max_size=50)
)
def test_each_score_gets_the_last_category_whose_bound_it_reaches(
    bounds: list[float], raw: list[float]
) -> None:
    starts = [0.0, *sorted(bounds)]
    scores = [*raw, *starts]
    decided = Decisions([(f"category-{i}", start) for i, start in enumerate(starts)]).decide(np.array(scores))
    expected = [f"category-{max(i for i, b in enumerate(starts) if b <= s)}".encode() for s in scores]
    assert decided.to_list() == expected


@pytest.mark.parametrize("starts", [[], [0.1], [0.0, 0.5, 0.5], [0.0, 0.5, 0.4]])
def test_thresholds_ascend_from_zero(starts: list[float]) -> None:
    with pytest.raises(ValueError, match="ascend"):
        Decisions([("x", start) for start in starts])


def test_classes_are_named_by_their_place() -> None:
    assert ClassNames(["a", 7, True]).of(np.array([2, 0, 1])).to_list() == [b"True", b"a", b"7"]
    assert ClassNames(["a"]).of(np.array([], np.int64)).to_list() == []
