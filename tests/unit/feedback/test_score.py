"""The ledger's order and numbers, and what is said of it when."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from services.feedback.core.score import ScoreFold
from services.feedback.core.spec import JoinSpec
from services.feedback.core.tally import Figure
from services.feedback.core.walk import SAYS_CORRECTION, SAYS_LABEL, SAYS_LATE, SAYS_MISSING
from shared.codec.batch import Batch, Strings
from shared.contracts.pipeline import Pipeline
from tests.unit.feedback.makers import NAMES, shop

DAY = 86_400_000
HOUR = 3_600_000
SETTLING = 1_000 + HOUR  # horizon and allowed lateness of the shop
POLICY = """
[policy.scores]
window = 10
every = 5
top_k = 2

[[policy.slice]]
name = "dear"
expression = "SPENT > 5"
"""
Row = dict[str, Any]


def pipeline(missing: str = '"none"') -> Pipeline:
    return shop(missing, more=POLICY)


def fold(missing: str = '"none"') -> ScoreFold:
    return ScoreFold(JoinSpec.of(pipeline(missing)))


def outcome(at: int, label_time: int, label: int, score: float = 0.75, **changes: Any) -> Row:
    """A row of joined.v1 about event number `at`, a minute after the one before."""
    row: Row = {
        "kind": SAYS_LABEL, "event_offset": at, "event_partition": 0, "event_time": 60_000 * at,
        "label_time": label_time, "label_class": label, "previous_class": -1, "score": score,
        "predicted_class": int(score >= 0.5), "model_version": 1, "model_digest": b"d1", "role": b"champion",
        "probabilities": b"\0", "spent": at % 10,
    }  # fmt: skip
    return {**row, **changes}


def batch(rows: list[Row]) -> Batch:
    columns: dict[str, Any] = {"order_time": [r["label_time"] for r in rows], "late": [False] * len(rows)}
    for name in outcome(0, 0, 0):
        columns[f"event.{name}"] = [row[name] for row in rows]
    spent = columns.pop("event.spent")
    columns |= {f"event.features.{name}": [0.0] * len(rows) for name in NAMES}
    columns["event.features.SPENT"] = [float(each) for each in spent]
    return Batch.of(
        {n: Strings.of(v) if isinstance(v[0], bytes) else np.array(v) for n, v in columns.items()}
    )


def play(fold: ScoreFold, rows: list[Row], cut: int | None = None) -> tuple[list[int], list[Figure]]:
    """Sequences written and figures said; with `cut` in two steps, a snapshot between them."""
    sequences: list[int] = []
    said: list[Figure] = []
    for part in [rows] if cut is None else [rows[:cut], rows[cut:]]:
        if part:
            written = fold.step(batch(part))
            if written.rows:
                sequences += written["sequence"].array.tolist()
            said += fold.said
        if cut is not None:
            other = ScoreFold(JoinSpec.of(pipeline()))
            other.restore(fold.snapshot())
            assert other.digest() == fold.digest()
            fold = other
    return sequences, said


def test_sequences_have_no_gap_and_events_without_class_take_none() -> None:
    rows = [outcome(n, 60_000 * n + 5, n % 2) for n in range(4)]
    rows[2] |= {"kind": SAYS_MISSING, "label_class": -1}
    made = fold()
    assert play(made, rows)[0] == [0, 1, 2]
    assert play(made, [outcome(9, 900_000, 1)])[0] == [3]


def test_rolling_figures_every_five_outcomes_over_the_last_ten() -> None:
    rows = [outcome(n, 60_000 * n + 5, int(n >= 10)) for n in range(20)]
    _, said = play(fold(), rows)
    accuracy = [f for f in said if (f.metric, f.slice, f.state) == ("accuracy", "all", "provisional")]
    assert [(f.sequence, f.rows, f.total, f.value) for f in accuracy] == [
        (4, 5, 5, 0.0),
        (9, 10, 10, 0.0),
        (14, 10, 15, 0.5),
        (19, 10, 20, 1.0),
    ]
    dear = [f for f in said if (f.metric, f.slice) == ("accuracy", "dear")]
    assert [(f.sequence, f.total) for f in dear] == [(16, 5)]


def test_versions_and_roles_are_scored_apart() -> None:
    rows = []
    for n in range(5):
        rows.append(outcome(n, 60_000 * n + 5, 1))
        rows.append(outcome(n, 60_000 * n + 5, 1, 0.25, model_version=2, model_digest=b"d2", role=b"shadow"))
    made = fold()
    _, said = play(made, rows)
    found = {made.groups.named[f.group]: f.value for f in said if (f.metric, f.slice) == ("accuracy", "all")}
    assert found == {(1, b"d1", b"champion"): 1.0, (2, b"d2", b"shadow"): 0.0}


def test_coverage_counts_what_passed_the_horizon_without_outcome() -> None:
    rows = [outcome(n, 60_000 * n + 5, 1) for n in range(5)]
    rows.insert(4, outcome(50, 60_000 * 4 + 5, -1, kind=SAYS_MISSING))
    _, said = play(fold(), rows)
    assert {f.coverage for f in said} == {5 / 6}
    late = [outcome(50, 400_000, 1, kind=SAYS_LATE)] + [outcome(60 + n, 500_000, 1) for n in range(4)]
    _, said = play(fold(), rows + late)
    assert said[-1].coverage == 1.0


def final(said: list[Figure]) -> list[Figure]:
    return [f for f in said if f.state == "final"]


def stream(count: int = 40) -> list[Row]:
    rng = np.random.default_rng(7)
    rows = [
        outcome(n, 60_000 * n + 500, int(rng.random() < 0.4), float(rng.integers(1, 9)) / 9)
        for n in range(count)
    ]
    return [*rows, outcome(10_000, 3 * DAY, 1)]


def values(said: list[Figure]) -> list[tuple[Any, ...]]:
    """All of a figure but the sequence, which says when its labels came."""
    return [tuple(vars_of(f)) for f in said]


def vars_of(figure: Figure) -> tuple[Any, ...]:
    return tuple(
        getattr(replace(figure, sequence=0), name)
        for name in Figure.__dataclass_fields__
        if name != "sequence"
    )


def test_settled_figures_do_not_depend_on_the_order_in_which_labels_came() -> None:
    rows = stream()
    times = [row["label_time"] for row in rows[:-1]]
    _, clean = play(fold(), rows)
    assert {f.window for f in final(clean)} == {"rolling", "all", "day:1970-01-01"}
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(times))
        # Labels may only come within the horizon of their event; here all do, as the lateness is an hour.
        shuffled = [{**rows[n], "label_time": t} for n, t in zip(order, sorted(times), strict=True)]
        shuffled = [r for r in shuffled if r["label_time"] <= r["event_time"] + SETTLING]
        assert len(shuffled) == len(times)
        _, other = play(fold(), [*shuffled, rows[-1]])
        assert values(final(other)) == values(final(clean))


@pytest.mark.parametrize("cut", range(0, 46, 5))
def test_cuts_and_restarts_leave_no_trace(cut: int) -> None:
    rows = stream()
    rows.insert(30, outcome(3, rows[30]["label_time"], 1, kind=SAYS_CORRECTION, previous_class=0))
    rows.insert(20, outcome(90, rows[20]["label_time"], -1, kind=SAYS_MISSING))
    rows.insert(35, outcome(90, rows[35]["label_time"], 0, kind=SAYS_LATE))
    rows += [outcome(4, 3 * DAY + 1, 0, kind=SAYS_CORRECTION, previous_class=1)]
    rows += [outcome(20_000, 6 * DAY, 1)]
    assert play(fold(), rows, cut) == play(fold(), rows)


def test_a_correction_says_day_and_settled_window_anew() -> None:
    rows = [outcome(n, 60_000 * n + 500, 1) for n in range(10)]
    made = fold()
    play(made, [*rows, outcome(10_000, 3 * DAY, 1)])
    _, said = play(made, [outcome(9, 3 * DAY + 1, 0, kind=SAYS_CORRECTION, previous_class=1)])
    found = {(f.window, f.slice): f.value for f in said if f.metric == "accuracy"}
    assert found == {
        ("rolling", "all"): 0.9,
        ("all", "all"): 0.9,
        ("day:1970-01-01", "all"): 0.9,
        ("day:1970-01-01", "dear"): 0.75,
    }


def test_the_top_of_a_day_is_said_once_the_day_has_settled() -> None:
    rows = [outcome(n, 60_000 * n + 500, int(n == 3), n / 10) for n in range(5)]
    _, said = play(fold(), [*rows, outcome(10_000, 3 * DAY, 1)])
    top = [f for f in said if f.metric == "precision_at_k"]
    assert [(f.window, f.value, f.state) for f in top] == [("day:1970-01-01", 0.5, "final")]


def test_what_is_settled_and_behind_all_windows_is_let_go() -> None:
    made = fold()
    rows = [outcome(n, 60_000 * n + 500, 1) for n in range(3_000)]
    play(made, [*rows, outcome(100_000, 30 * 100 * DAY, 1)])
    assert made.snapshot()["board|rows"].shape[0] < 50
