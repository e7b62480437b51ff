"""Whether somebody runs a pipeline here is told by living workers, not by files they left behind."""

import sys
import threading
from pathlib import Path

import pytest

from services.cli.serving import is_run
from services.stack import process
from services.stack.supervisor import run_folder

SLEEPS = (sys.executable, "-c", "import time; time.sleep(60)")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    made = run_folder(tmp_path, "orders")
    made.mkdir(parents=True)
    return made


def test_a_living_worker_says_that_the_pipeline_is_run(folder: Path) -> None:
    assert not is_run("orders")
    handle = process.spawn(SLEEPS, folder / "ingest-0.log", {})
    process.remember(handle, folder / "ingest-0.pid")
    try:
        assert is_run("orders")
        assert not is_run("payments")
    finally:
        process.stop_all([handle], 5.0)
    assert not is_run("orders"), "its pidfile is still there"


def test_one_that_starts_within_the_grace_counts(folder: Path) -> None:
    started: list[process.Handle] = []

    def start() -> None:
        started.append(process.spawn(SLEEPS, folder / "ingest-0.log", {}))
        process.remember(started[0], folder / "ingest-0.pid")

    timer = threading.Timer(0.3, start)
    timer.start()
    try:
        assert is_run("orders", grace_s=30.0)
    finally:
        timer.join()
        process.stop_all(started, 5.0)
