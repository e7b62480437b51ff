"""Whether somebody runs a pipeline here is told by living workers; where they give up, nobody waits for them."""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from services.cli import serving, standstill
from services.cli.replaying import Pace, Replay
from services.cli.script import write_script
from services.cli.serving import is_run, served
from services.cli.standstill import Standstill
from services.stack import process
from services.stack.supervisor import REFUSED, Worker, run_folder
from shared.errors import FuseBlown
from shared.settings import KafkaSettings
from shared.topics import EVENTS, LABELS, REPLAYS
from tests.unit.cli.test_lockstep import FRAUD, rows

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


REFUSES = (sys.executable, "-c", f"import sys; print('pipeline.toml:3: no key'); sys.exit({REFUSED})")
WHY = r"ingest-0 was refused.*pipeline.toml:3: no key"


@pytest.fixture
def refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline's services end as one does whose declaration is wrong."""
    assert folder.is_dir()
    monkeypatch.delenv("MILLRACE_KAFKA__BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setattr(serving, "plan_of", lambda _pipeline: [Worker("ingest", 0, REFUSES)])


def endlessly(beat: Callable[[], None]) -> None:
    """Wait as one does for a step's end: `beat` is called until it raises."""
    deadline = time.monotonic() + 30.0
    while time.monotonic() < deadline:
        beat()
        time.sleep(0.02)


@pytest.mark.usefixtures("refused")
def test_whoever_waits_is_told_why_the_services_gave_up() -> None:
    with served(FRAUD, grace_s=0.0) as check, pytest.raises(FuseBlown, match=WHY):
        endlessly(check)


@pytest.mark.usefixtures("folder")
def test_services_that_somebody_else_runs_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_KAFKA__BOOTSTRAP_SERVERS", "broker:9092")
    with served(FRAUD) as check:
        check()


class Step:
    """One step of everything, whose end never comes."""

    ranges = ((0, 3),)

    def step_over(self, come_to: int, beat: Callable[[], None]) -> None:
        del come_to
        endlessly(beat)

    def rest_over(self, beat: Callable[[], None]) -> None:
        endlessly(beat)


@pytest.mark.usefixtures("refused")
def test_a_replay_in_lockstep_ends_with_the_services() -> None:
    ids = {each.of(FRAUD.name): 1 for each in (EVENTS, LABELS, REPLAYS)}
    script = write_script(rows(3), FRAUD, None)
    with served(FRAUD, grace_s=0.0) as check:
        # Nobody is asked at this address: `rest_over` comes before the first record.
        replay = Replay(
            KafkaSettings(bootstrap_servers="127.0.0.1:1"),
            FRAUD,
            ids,
            script,
            Pace(),
            steps=Step(),
            check=check,
        )
        with pytest.raises(FuseBlown, match=WHY):
            replay._step_through(Step())


class NoGroups:
    """A broker's admin whose groups nobody has joined."""

    def __init__(self, config: object) -> None:
        del config

    def describe_consumer_groups(self, groups: object, request_timeout: float) -> dict[str, object]:
        del groups, request_timeout
        return {}


@pytest.mark.usefixtures("refused")
def test_services_that_never_come_up_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standstill, "AdminClient", NoGroups)
    began = time.monotonic()
    with served(FRAUD, grace_s=0.0) as check, pytest.raises(FuseBlown, match=WHY):
        Standstill(KafkaSettings(bootstrap_servers="127.0.0.1:1"), FRAUD, {}, ["ingest"], 60.0, check)
    assert time.monotonic() - began < 30.0
