"""The training process is held to its limits, and whatever becomes of it the service gets a sentence."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from services.retrainer.process import Bench, StepFailed, Stopped, TrainingProcess, resident_bytes
from services.retrainer.rehearsal import rehearse
from services.retrainer.training import answer
from shared.errors import Refused, Retry

# Stands for the training process: answers as the first word of a job's `do` says.
STUB = """
import json, os, sys, time
time.sleep(0.5)
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    if job["do"] == "sleep": time.sleep(60)
    if job["do"] == "eat": hold = bytearray(job["bytes"]); hold[::4096] = b"x" * len(hold[::4096]); time.sleep(60)
    if job["do"] == "grow": hold = bytearray(60 << 20); hold[::4096] = b"x" * len(hold[::4096])
    if job["do"] == "away": print(json.dumps({"failed": "retry", "detail": "no store"}), flush=True); continue
    if job["do"] == "die": sys.stderr.write("first\\nlast words\\n"); os._exit(3)
    print(json.dumps({"done": job["do"]}), flush=True)
"""


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen

    def popen(command: list[str], **more: Any) -> Any:  # noqa: ARG001
        return start([sys.executable, "-c", STUB], **more)

    monkeypatch.setattr(subprocess, "Popen", popen)


def made(memory_bytes: int = 1 << 30, leaving: threading.Event | None = None) -> TrainingProcess:
    return TrainingProcess(memory_bytes, 0, 1, leaving or threading.Event())


@pytest.mark.usefixtures("stub")
def test_answers_come_one_by_one() -> None:
    worker = made()
    assert [worker.ask({"do": word}, 30) for word in ("one", "two")] == ["one", "two"]
    worker.close()


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize(
    ("job", "memory", "limit_s", "code", "detail"),
    [
        ({"do": "sleep"}, 1 << 30, 0.3, "time", "more than the 0.3 s"),
        ({"do": "eat", "bytes": 200 << 20}, 100 << 20, 30.0, "memory", "more than the 104857600"),
        ({"do": "die"}, 1 << 30, 30.0, "crash", "ended with 3: last words"),
    ],
)
def test_beyond_a_limit_is_a_failed_step(
    job: dict[str, Any], memory: int, limit_s: float, code: str, detail: str
) -> None:
    worker = made(memory)
    with pytest.raises(StepFailed, match=detail) as failed:
        worker.ask(job, limit_s)
    assert failed.value.code == code
    worker.close()
    assert worker._process.returncode is not None


@pytest.mark.usefixtures("stub")
def test_a_store_that_is_away_is_a_retry_and_the_process_is_sound() -> None:
    bench = Bench(1 << 30, 0, 1, spare=True)
    worker = bench()
    with pytest.raises(Retry, match="no store"):
        worker.ask({"do": "away"}, 30)
    worker.close()
    assert bench() is worker
    worker.close()
    bench.close()


@pytest.mark.usefixtures("stub")
def test_leaving_ends_a_step_at_once() -> None:
    leaving = threading.Event()
    worker = made(leaving=leaving)
    threading.Timer(0.3, leaving.set).start()
    begin = time.monotonic()
    with pytest.raises(Stopped):
        worker.ask({"do": "sleep"}, 60)
    assert time.monotonic() - begin < 10
    worker.close()


@pytest.mark.usefixtures("stub")
def test_a_spare_waits_and_goes_with_the_service() -> None:
    bench = Bench(1 << 30, 0, 1, spare=True)
    bench.prepare()
    spare = bench._next
    bench.prepare()
    assert spare is not None
    assert bench._next is spare
    assert bench() is spare
    spare.close()
    bench.prepare()
    left = bench._next
    assert left is not None
    bench.close()
    assert left._process.returncode is not None
    bench.prepare()
    assert bench._next is None


@pytest.mark.usefixtures("stub")
def test_a_process_that_did_all_it_was_asked_serves_the_next_run_too() -> None:
    bench = Bench(1 << 30, 0, 1, spare=True)
    first = bench()
    assert first.ask({"do": "one"}, 30) == "one"
    first.close()
    second = bench()
    assert second is first
    assert second.ask({"do": "two"}, 30) == "two"
    second.close()
    bench.close()
    assert isinstance(first, TrainingProcess)
    assert first._process.returncode is not None


@pytest.mark.usefixtures("stub")
def test_a_process_that_failed_or_grew_serves_no_other_run() -> None:
    bench = Bench(1 << 30, 0, 1, spare=True)
    broken = bench()
    with pytest.raises(StepFailed):
        broken.ask({"do": "sleep"}, 0.3)
    broken.close()
    assert bench._next is None
    bench.close()
    small = Bench(100 << 20, 0, 1, spare=True)
    grown = small()
    assert grown.ask({"do": "grow"}, 30) == "grow"
    grown.close()
    assert small._next is None
    assert isinstance(grown, TrainingProcess)
    assert grown._process.returncode is not None


@pytest.mark.usefixtures("stub")
def test_a_process_that_died_while_it_waited_serves_nobody() -> None:
    bench = Bench(1 << 30, 0, 1, spare=True)
    first = bench()
    assert isinstance(first, TrainingProcess)
    assert first.ask({"do": "one"}, 30) == "one"
    first.close()
    first._process.kill()
    first._process.wait()
    second = bench()
    assert second.ask({"do": "two"}, 30) == "two"
    assert first._said.closed
    second.close()
    bench.close()


@pytest.mark.usefixtures("stub")
def test_nor_does_a_dead_spare_keep_another_from_being_made() -> None:
    bench = Bench(1 << 30, 0, 1, spare=True)
    bench.prepare()
    dead = bench._next
    assert dead is not None
    dead._process.kill()
    dead._process.wait()
    bench.prepare()
    assert bench._next is not None
    assert bench._next is not dead
    bench.close()


def test_the_real_process_says_what_it_cannot_do_and_ends_with_its_caller() -> None:
    worker = made(4 << 30)
    terms = {
        "feature_names": ["a"],
        "feature_fingerprint": "0" * 64,
        "classes": 2,
        "positive": 1,
        "policy": {},
        "slices": [],
        "architecture": "linear",
        "hidden": [],
        "metric": "log_loss",
        "categorical": [],
    }
    job: dict[str, Any] = {"do": "train", "terms": terms, "kept": "memory://", "dataset": "0" * 64}
    with pytest.raises(StepFailed, match="has no manifests/0000") as failed:
        worker.ask(job, 120)
    assert failed.value.code == "refused"
    assert resident_bytes(worker._process.pid) > 10 << 20
    assert worker._process.stdin is not None
    worker._process.stdin.close()
    assert worker._process.wait(30) == 0
    worker.close()


def refusing(job: dict[str, Any]) -> Any:  # noqa: ARG001
    raise Refused("these rows teach nothing")


def waiting(job: dict[str, Any]) -> Any:  # noqa: ARG001
    raise Retry("the store is away")


def hungry(job: dict[str, Any]) -> Any:  # noqa: ARG001
    raise MemoryError


def allocating(job: dict[str, Any]) -> Any:  # noqa: ARG001
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried\nmore")


def broken(job: dict[str, Any]) -> Any:  # noqa: ARG001
    raise RuntimeError("a mistake of ours")


@pytest.mark.parametrize(
    ("work", "said"),
    [(refusing, "refused"), (waiting, "retry"), (hungry, "memory"), (allocating, "memory")],
)
def test_what_a_job_raises_becomes_a_sentence(work: Any, said: str) -> None:
    found = answer({"do": "it"}, {"it": work})
    assert found["failed"] == said
    assert "\n" not in str(found["detail"])


def test_a_mistake_of_ours_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="of ours"):
        answer({"do": "it"}, {"it": broken})


def test_memory_of_a_process_that_is_gone_is_nothing() -> None:
    assert resident_bytes(2**22 + 1) == 0
    assert Path("/proc/self/statm").exists()


def test_a_rehearsal_fits_every_kind() -> None:
    assert {each.kind for each in rehearse()} == {"linear", "torch", "gbt", "online"}
