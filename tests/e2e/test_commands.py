"""The commands that a newcomer types, as processes against a real stack: demo and truth."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import psutil
import pytest

from services.cli.truth import RAW, TRUTH
from services.stack.endpoints import Endpoints
from shared.settings import home

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def millrace(*arguments: str, at: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MILLRACE_HOME": str(at or home())},
    )


def living_in(folder: Path) -> list[str]:
    """Command lines of the processes whose Millrace home is `folder`, or that name it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if process.environ().get("MILLRACE_HOME") == str(folder) or str(folder) in line:
                found.append(line)
    return found


def test_demo_on_an_empty_home_balances_its_books_and_leaves_nothing_running(tmp_path: Path) -> None:
    empty = tmp_path / "home"
    done = millrace("demo", "--customers", "200", "--rate", "500", "--seconds", "4", "--json", at=empty)
    assert done.returncode == 0, done.stderr
    assert living_in(empty) == []
    summary = json.loads(done.stdout)
    assert summary["exactly_once"]
    assert summary["events"] == summary["predictions"] > 10_000
    assert summary["latency"]["p99_ms"] > summary["latency"]["p50_ms"] > 0
    assert summary["throughput"]["events_per_second"] > 0
    assert summary["model"]["auc"] > 0.6
    assert sum(summary["labels"].values()) == summary["predictions"]


def test_demo_closes_the_circle_twice_alike(stack: Endpoints, tmp_path: Path) -> None:  # noqa: ARG001
    """In lockstep the seed says what happens, not the machine: two runs at once slow each other down."""
    pictures = [tmp_path / "a.png", tmp_path / "b.png"]
    arguments = ("demo", "--only", "change", "--events", "4000", "--seed", "5", "--json", "--plot")
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda each: millrace(*arguments, str(each)), pictures))
    assert [each.returncode for each in runs] == [0, 0], runs[0].stderr + runs[1].stderr
    one, other = (json.loads(each.stdout)["change"] for each in runs)
    for told, picture in zip((one, other), pictures, strict=True):
        assert told.pop("plot") == str(picture)
        assert told.pop("pipeline").startswith("applications-demo-")
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert one == other
    assert one["lockstep"]
    assert one["missing"] == []
    assert 0 < one["alarm"] <= one["retrained"] < one["promoted"] < one["recovered"]
    assert one["after"] > 0.8
    assert one["excess"] > 0


def test_a_demo_that_is_told_to_end_leaves_nothing_running(tmp_path: Path) -> None:
    empty = tmp_path / "home"
    command = [sys.executable, "-m", "services.cli.main", "demo", "--customers", "200", "--only", "payments"]
    environment = {**os.environ, "MILLRACE_HOME": str(empty)}
    with subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE) as demo:
        assert demo.stderr is not None
        assert any("services started" in line for line in demo.stderr)
        assert len(living_in(empty)) > 5
        demo.terminate()
        demo.stderr.read()
        assert demo.wait(90) == 128 + signal.SIGTERM
    assert living_in(empty) == []


@pytest.fixture(scope="module")
def some_truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 5,000 published rows."""
    if not Path(TRUTH[0]).is_file():
        pytest.skip("../shared/data is not here: there are no published features to compare with")
    path = tmp_path_factory.mktemp("truth") / "truth.csv"
    pl.read_csv(TRUTH[0], n_rows=5_000).write_csv(path)
    return path


def test_truth_holds(stack: Endpoints, some_truth: Path) -> None:  # noqa: ARG001
    done = millrace("truth", "--raw", RAW, "--truth", str(some_truth), "--limit", "5000")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "rows 5000 columns 14 mismatches 0"


def test_truth_fails_on_one_wrong_value(stack: Endpoints, some_truth: Path, tmp_path: Path) -> None:  # noqa: ARG001
    column = "CUSTOMER_ID_AVG_AMOUNT_7DAY_WINDOW"
    wrong = pl.read_csv(some_truth)
    wrong = wrong.with_columns(
        pl.when(pl.col("TRANSACTION_ID") == 4_321)
        .then(pl.col(column) + 2e-6)
        .otherwise(pl.col(column))
        .alias(column)
    )
    path = tmp_path / "wrong.csv"
    wrong.write_csv(path)
    done = millrace("truth", "--raw", RAW, "--truth", str(path), "--limit", "5000")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "rows 5000 columns 14 mismatches 1"
    assert "TRANSACTION_ID 4321" in done.stdout
