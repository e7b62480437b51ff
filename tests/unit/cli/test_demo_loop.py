"""The circle of the demo: each thing counted in events since the change, and nothing told that did not happen."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from services.cli.changing import Change
from services.cli.chronicle import Chronicle
from services.cli.demo_loop import Circle, change_lines, circle_of, declare
from shared.contracts.pipeline import find_pipeline, load_pipeline
from tests.unit.cli.test_story import AUDIT, CHANGE, EVENTS, TRUTH, alarm, run, telling

WORLD = 400
"""Where the world of these tests changes: answers are wrong until version 2 comes at event CHANGE."""
RUNS = [run("trigger", 460), run("done", 460, kind="gbt", digest=f"{2:064x}")]


def circle(alarms: Any = None, runs: Any = None, until: int = CHANGE) -> Circle:
    numbers = np.arange(EVENTS)
    said = np.where((numbers >= WORLD) & (numbers < until), 1 - TRUTH, TRUTH)
    early = alarm(300, 3_480)  # before the change: a false one is not the change's
    given = [early, alarm(440, 4_480)] if alarms is None else alarms
    pipeline = load_pipeline(find_pipeline("fraud"))
    chronicle = Chronicle(pipeline, telling(said, TRUTH), given, RUNS if runs is None else runs, AUDIT)
    return circle_of(chronicle, WORLD)


def test_everything_is_counted_from_the_change_on() -> None:
    found = circle()
    assert (found.before, found.after) == (1.0, 1.0)
    assert (found.alarm, found.detector) == (49, "adwin")
    assert found.retrained == 460 + 48 + 1 - WORLD
    assert (found.promoted, found.version) == (CHANGE - WORLD, 2)
    # 12 of 250 wrong answers are within 0.05: the window begins 12 before version 2.
    assert found.recovered == CHANGE - 12 + 250 - WORLD
    assert found.excess == CHANGE - WORLD
    assert found.missing == []


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"alarms": []}, ["no alarm", "no retraining", "no promotion"]),
        ({"alarms": [alarm(300, 3_480)]}, ["no alarm", "no retraining", "no promotion"]),
        ({"runs": []}, ["no retraining", "no promotion"]),
        ({"runs": [run("skipped", 460, reason="few")]}, ["no retraining", "no promotion"]),
        ({"runs": [run("done", 460, digest="f" * 64)]}, ["no promotion"]),
        ({"until": EVENTS}, ["no recovery"]),
    ],
)
def test_what_did_not_happen_is_missing(given: dict[str, Any], missing: list[str]) -> None:
    assert circle(**given).missing == missing


def test_lines_say_never_for_what_did_not_happen() -> None:
    told = {
        "events": EVENTS,
        "lockstep": True,
        "plot": "x.png",
        **{name: getattr(circle(runs=[]), name) for name in Circle.__slots__},
    }
    lines = "\n".join(change_lines(told))
    assert "change        at event 400 of 1000, in lockstep; accuracy before it 1.0" in lines
    assert "alarm         after 49 events, by adwin" in lines
    assert "promoted      never" in lines


def test_the_stream_is_declared_as_anybody_would(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    folder, file = declare("applications", Change(events=100, at=50, seed=3))
    declared = load_pipeline(folder)
    assert declared.loops
    assert declared.feature_names == ("income", "history", "debt", "age", "savings", "tenure")
    assert pl.read_csv(file).height == 100
