"""The loop as a user meets it: three commands on a file never seen before, and twice the same story."""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.datasets import make_classification

from schemas import platform_schema
from services.cli.chronicle import read_chronicle
from services.cli.journey import Journey
from services.cli.script import labels_after_ms, read_rows, write_script
from services.cli.serving import is_run
from services.cli.story import Story
from services.stack.endpoints import Endpoints
from shared.settings import home
from shared.topics import PREDICTIONS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CLASSES, COLUMNS = 5, 20
BEFORE, AFTER, STEP = 1_600, 1_400, 400


def changing(before: int, after: int, classes: int, columns: int, seed: int) -> pl.DataFrame:
    """A stream whose classes move to other places at row `before`."""
    worlds = [
        make_classification(
            n_samples=rows,
            n_features=columns,
            n_informative=min(10, columns),
            n_redundant=0,
            n_classes=classes,
            n_clusters_per_class=1,
            class_sep=2.0,
            random_state=seed + world,
        )
        for world, rows in enumerate((before, after))
    ]
    matrix = np.vstack([world[0] for world in worlds])
    classes_of = np.concatenate([world[1] for world in worlds])
    numbers = {f"x {i}": matrix[:, i] for i in range(columns)}
    return pl.DataFrame(numbers | {"kind": [f"kind-{each}" for each in classes_of.tolist()]})


def millrace(*arguments: str, folder: Path) -> str:
    """What a command says on standard output; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "services.cli.main", *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout


def environment(folder: Path) -> dict[str, str]:
    root = Path(__file__).parents[2]
    kept = {name: value for name, value in os.environ.items() if name != "MILLRACE_SCHEMAS"}
    return {**kept, "MILLRACE_HOME": str(home()), "PYTHONPATH": str(root), "PWD": str(folder)}


def test_any_file_goes_to_a_loop_report_with_three_commands(
    stack: Endpoints, pipeline_name: str, tmp_path: Path
) -> None:
    assert stack.bootstrap_servers
    changing(BEFORE, AFTER, CLASSES, COLUMNS, seed=5).write_csv(tmp_path / "any.csv")
    millrace("init", pipeline_name, "--from", "any.csv", "--label", "kind", folder=tmp_path)
    arguments = ("--pipeline", pipeline_name, "--lockstep", str(STEP), "--json")
    sent = json.loads(millrace("replay", "any.csv", *arguments, folder=tmp_path))
    assert not is_run(pipeline_name), "the replay ran the services, and stops them"
    told = json.loads(
        millrace("loop", "report", pipeline_name, "--json", "--plot", "loop.png", folder=tmp_path)
    )
    rows = BEFORE + AFTER
    assert (sent["events"], sent["labels"]) == (rows, rows)
    assert (told["events"], told["labelled"], told["metric"]) == (rows, rows, "accuracy")
    assert (tmp_path / "loop.png").stat().st_size > 10_000
    _learnt(told)
    _found_the_change(told)
    _models_at_agrees(told, tmp_path)


def _learnt(told: dict[str, Any]) -> None:
    """A first model came into force between two steps and was right far more often than chance."""
    crowned = [mark for mark in told["marks"] if mark["what"] == "promotion"]
    assert crowned[0]["detail"]["reason"] == "bootstrap"
    assert crowned[0]["index"] == 0
    first = crowned[1]
    assert first["index"] % STEP == 0
    assert 0 < first["index"] < BEFORE
    served = next(each for each in told["versions"] if each["version"] == first["version"])
    assert served["figures"]["accuracy"] > 0.5
    assert sum(each["events"] for each in told["versions"]) == told["events"]


def _found_the_change(told: dict[str, Any]) -> None:
    """The change was alarmed, and a version that was trained behind it serves at the end."""
    alarms = [m["index"] for m in told["marks"] if m["what"] == "alarm" and m["detail"]["triggers"]]
    assert any(BEFORE < index <= BEFORE + 600 for index in alarms)
    last = [m for m in told["marks"] if m["what"] == "promotion" and m["index"] is not None][-1]
    assert last["index"] > BEFORE
    end = [value for index, value in told["trail"] if index >= BEFORE][-1]
    low = min(value for index, value in told["trail"] if index >= BEFORE)
    assert end > low


def _models_at_agrees(told: dict[str, Any], folder: Path) -> None:
    """`models at` names, in the middle of each reign, the version that the predictions of then carry."""
    name = told["pipeline"]
    journey = Journey(folder / "schemas" / name)
    rows = journey.rows(
        journey.topic(PREDICTIONS.name), platform_schema("prediction"), ["order_time", "model_version"]
    )
    order = np.argsort(rows["order_time"].array, kind="stable")
    times, versions = rows["order_time"].array[order], rows["model_version"].array[order]
    reigns = [each for each in told["versions"] if each["events"]]
    assert len(reigns) > 2
    for reign in reigns:
        middle = reign["first"] + reign["events"] // 2
        moment = datetime.fromtimestamp(int(times[middle]) / 1_000, UTC).isoformat()
        said = json.loads(millrace("models", "at", name, moment, "--json", folder=folder))
        assert said["version"] == said["decided"] == versions[middle] == reign["version"]
        assert said["agrees"]
        assert {each["version"] for each in said["predictions"]} == {reign["version"]}


def story_of(tmp_path: Path, name: str, file: Path) -> Story:
    """Declare the file under `name`, and send it in lockstep through services of its own."""
    millrace("init", name, "--from", str(file), "--label", "kind", folder=tmp_path)
    journey = Journey(tmp_path / "schemas" / name, services="loop")
    declared = journey.pipeline
    script = write_script(read_rows(file, declared), declared, labels_after_ms(declared))
    with journey:
        journey.replay_in_steps(script, 250)
    return read_chronicle(journey.platform, declared, journey.schema_ids).story()


def test_lockstep_tells_the_same_story_twice(stack: Endpoints, pipeline_name: str, tmp_path: Path) -> None:
    """Whatever the machine's speed was: alarms, trainings, verdicts and promotions at the same events."""
    assert stack.bootstrap_servers
    file = tmp_path / "two.csv"
    changing(900, 500, classes=2, columns=10, seed=9).write_csv(file)
    began = time.monotonic()
    one, other = (story_of(tmp_path, f"{pipeline_name}-{word}", file) for word in ("a", "b"))
    told = [[(m.what, m.index, m.sequence, m.version, m.text) for m in each.marks] for each in (one, other)]
    assert told[0] == told[1], f"after {time.monotonic() - began:.0f} s"
    # Scores depend on the batch that a row was in by their last bits.
    assert one.figures == pytest.approx(other.figures, abs=1e-6)
    assert {"promotion", "training", "verdict"} <= {m.what for m in one.marks}
    assert [at for at, _ in one.trail] == [at for at, _ in other.trail]
    assert [value for _, value in one.trail] == pytest.approx([value for _, value in other.trail])
