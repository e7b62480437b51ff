"""The supervisor starts, restarts, gives up and drains real child processes."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from services.stack import process
from services.stack.supervisor import REFUSED, RestartPolicy, Supervisor, Worker, plan, plan_of
from shared.contracts.pipeline import find_pipeline, load_pipeline
from shared.errors import FuseBlown, Refused
from shared.runtime.entry import EXIT_REFUSED

DRAINS = """
import signal, sys, time
def leave(*_):
    print("drained", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("ready", flush=True)
time.sleep(60)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


def worker(code: str, slot: int = 0) -> Worker:
    return Worker("w", slot, (sys.executable, "-c", code))


def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def said(supervisor: Supervisor, word: str, times: int = 1, slot: int = 0) -> Callable[[], bool]:
    return lambda: supervisor.log("w", slot).read_text().count(word) >= times


def test_plan_has_one_features_service_per_entity() -> None:
    workers = plan("fraud", ["customer", "terminal"], {"ingest": 2, "features": 3, "features-terminal": 1})
    assert [w.name for w in workers] == [
        "ingest-0",
        "ingest-1",
        "features-customer-0",
        "features-customer-1",
        "features-customer-2",
        "features-terminal-0",
        "inference-0",
    ]
    assert workers[2].command[2:] == (
        *("-m", "services.features", "--pipeline", "fraud", "--slot", "0", "--stage", "customer"),
    )


def test_plan_refuses_a_service_that_the_pipeline_lacks() -> None:
    with pytest.raises(
        Refused, match="no service 'features-shop'; its services are ingest, features-customer"
    ):
        plan("fraud", ["customer"], {"features-shop": 2})


def test_plan_has_what_learns_from_outcomes_where_they_are_declared() -> None:
    alone = [worker.name for worker in plan("p", ["e"])]
    joined = [worker.name for worker in plan("p", ["e"], {"feedback": 2}, outcomes=True)]
    whole = [worker.name for worker in plan("p", ["e"], outcomes=True, loop=True)]
    assert joined == [*alone, "feedback-join-0", "feedback-join-1", "feedback-score-0", "feedback-score-1"]
    learners = ["drift-0", "retrainer-0", "controller-0"]
    assert whole == [*alone, "feedback-join-0", "feedback-score-0", *learners]


def test_the_data_path_of_a_pipeline_can_be_planned_alone() -> None:
    declared = load_pipeline(find_pipeline("elec2"))
    data = [worker.name for worker in plan_of(declared, services="data")]
    assert data == ["ingest-0", "features-market-0", "inference-0"]
    assert [worker.name for worker in plan_of(declared)][:5] == [*data, "feedback-join-0", "feedback-score-0"]


def test_plan_refuses_feedback_where_there_are_no_outcomes() -> None:
    with pytest.raises(Refused, match="no service 'feedback'"):
        plan("fraud", ["customer"], {"feedback": 2})


def test_a_killed_worker_comes_back(tmp_path: Path) -> None:
    with Supervisor([worker(DRAINS), worker(DRAINS, 1)], tmp_path) as supervisor:
        until(said(supervisor, "ready"))
        first = supervisor.alive()
        assert supervisor.kill("w", 0)
        until(said(supervisor, "ready", times=2))
        second = supervisor.alive()
        assert first["w-0"] != second["w-0"]
        assert first["w-1"] == second["w-1"]
        assert supervisor.restarts() == {"w-0": 1, "w-1": 0}


def test_stop_drains_and_leaves_nothing(tmp_path: Path) -> None:
    supervisor = Supervisor([worker(DRAINS)], tmp_path)
    supervisor.start()
    until(said(supervisor, "ready"))
    assert supervisor.stop() == []
    assert supervisor.log("w").read_text().split() == ["ready", "drained"]
    assert supervisor.alive() == {"w-0": None}
    assert list(tmp_path.glob("*.pid")) == []


def test_stop_kills_what_does_not_leave(tmp_path: Path) -> None:
    supervisor = Supervisor([worker(STUBBORN)], tmp_path)
    supervisor.start()
    until(said(supervisor, "ready"))
    assert supervisor.stop(patience_s=0.3) == ["w-0"]
    assert supervisor.alive() == {"w-0": None}


def test_the_fuse_blows_when_a_worker_dies_too_often(tmp_path: Path) -> None:
    policy = RestartPolicy(first_s=0.01, longest_s=0.01, allowed=2)
    doomed = worker("import sys; sys.exit('no such table')")
    with Supervisor([doomed, worker(DRAINS, 1)], tmp_path, policy=policy) as supervisor:
        with pytest.raises(FuseBlown, match=r"w-0 died 3 times within 60 s.*no such table"):
            supervisor.wait(20)
        until(lambda: supervisor.alive() == {"w-0": None, "w-1": None})


def test_a_refused_worker_is_not_started_again(tmp_path: Path) -> None:
    refused = worker(f"import sys; print('pipeline.toml:3: no key'); sys.exit({REFUSED})")
    with (
        Supervisor([refused], tmp_path) as supervisor,
        pytest.raises(FuseBlown, match=r"w-0 was refused.*pipeline.toml:3"),
    ):
        supervisor.wait(20)
    assert REFUSED == EXIT_REFUSED


def test_workers_of_a_killed_supervisor_are_stopped_first(tmp_path: Path) -> None:
    left = process.spawn(worker(DRAINS).command, tmp_path / "old.log")
    process.remember(left, tmp_path / "w-0.pid")
    until(lambda: "ready" in (tmp_path / "old.log").read_text())
    with Supervisor([worker(DRAINS)], tmp_path):
        assert not left.alive
        assert "drained" in (tmp_path / "old.log").read_text()
