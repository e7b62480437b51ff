"""Faust on a real broker: committed records only, each at least once and in order, and deaths that are deaths."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from shared.kafka.config import client_config
from shared.kafka.transactions import producer_config
from shared.settings import KafkaSettings, PlatformSettings, home

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("stack")]
PATIENCE_S = 240.0


def until(what: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
    """The first true answer."""
    end = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.05)
    return answer


@dataclass
class Bench:
    """A topic with a transactional producer, and processes that read it."""

    kafka: KafkaSettings
    folder: Path
    name: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.topic = f"{self.name}.in"
        config = {**producer_config(self.kafka, "lz4"), "transactional.id": self.name}
        self.producer = Producer(config)
        self.producer.init_transactions(30.0)

    def say(self, *values: str, commit: bool = True) -> None:
        """The values in a transaction."""
        self.producer.begin_transaction()
        for value in values:
            self.producer.produce(self.topic, value.encode(), b"key")
        self.producer.flush(30.0)
        if commit:
            self.producer.commit_transaction(30.0)
        else:
            self.producer.abort_transaction(30.0)

    def start(self, mode: str = "0", file: str = "out") -> subprocess.Popen[bytes]:
        worker = Path(__file__).with_name("faust_worker.py")
        command = [
            sys.executable,
            "-W",
            "error",
            str(worker),
            self.topic,
            self.name,
            mode,
            str(self.folder / file),
        ]
        root = Path(__file__).parents[2]
        with (self.folder / f"{file}.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=root, stderr=log, env=_environment(root))
        self.processes.append(process)
        return process

    def lines(self, word: str, file: str = "out") -> list[str]:
        place = self.folder / file
        text = place.read_text() if place.exists() else ""
        return [line.removeprefix(f"{word} ") for line in text.splitlines() if line.startswith(f"{word} ")]

    def values(self, file: str = "out") -> list[str]:
        """What was begun, in order."""
        return [line.split()[1] for line in self.lines("begin", file)]

    def committed(self) -> int:
        settings = {**client_config(self.kafka), "group.id": f"millrace.{self.name}.probe"}
        consumer = Consumer(settings)
        try:
            (place,) = consumer.committed([TopicPartition(self.topic, 0)], timeout=10.0)
            return int(place.offset)
        finally:
            consumer.close()

    def url(self, slot: int = 0) -> str:
        """Where a running worker answers."""
        note = home() / "run" / f"{self.name}.probe-{slot}.json"
        until(note.exists)
        return str(until(lambda: json.loads(note.read_text() or "null"))["url"])


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root)}


@pytest.mark.parametrize("before", [0, 2])
def test_what_is_dropped_as_the_flow_stops_comes_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """With an offset committed and without: a topic's first record must not wait for the next restart."""
    if before:
        bench.say(*["early"] * before)
        first = bench.start(file="first")
        until(lambda: bench.committed() >= before)
        first.terminate()
        assert first.wait(30) == 0
    monkeypatch.setenv("PROBE_DROP", "1")
    bench.say("alarm")
    bench.start()
    until(lambda: "alarm" in bench.values(), 60.0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    kafka = PlatformSettings().kafka
    admin = AdminClient(client_config(kafka))
    name = f"faust-{uuid.uuid4().hex[:8]}"
    topics = [f"{name}.in", f"{name}.metrics.v1"]
    for made in admin.create_topics([NewTopic(topic, 1, 1) for topic in topics]).values():
        made.result()
    made_here = Bench(kafka, tmp_path, name)
    yield made_here
    for process in made_here.processes:
        process.kill()
        process.wait()
    for gone in admin.delete_topics(topics).values():
        gone.result()


def test_an_aborted_record_never_reaches_an_agent(bench: Bench) -> None:
    bench.say("a0")
    bench.say("no1", "no2", "no3", commit=False)
    bench.say("a1", "a2")
    bench.say("no4", commit=False)
    bench.say("a3")
    process = bench.start()
    until(lambda: len(bench.values()) >= 4)
    bench.say("no5", commit=False)
    bench.say("a4")
    until(lambda: len(bench.values()) >= 5)
    assert bench.values() == ["a0", "a1", "a2", "a3", "a4"]
    # Gaps where markers and aborted records lie do not hold the offset back, not even right behind offset 0.
    last = int(bench.lines("begin")[-1].split()[0])
    until(lambda: bench.committed() == last + 1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0


def test_with_the_driver_as_it_comes_the_aborted_record_arrives(bench: Bench) -> None:
    bench.say("a0")
    bench.say("no1", commit=False)
    bench.say("a1")
    process = bench.start("upstream")
    until(lambda: "a1" in bench.values())
    assert bench.values() == ["a0", "no1", "a1"]
    (bench.folder / "out.go").touch()
    assert process.wait(PATIENCE_S) == 0


def test_what_was_under_way_at_a_kill_comes_again_in_order(bench: Bench) -> None:
    bench.say(*[f"v{n}" for n in range(50)])
    process = bench.start()
    # A slow process takes up all that has come as one batch: what is to be committed must be done before.
    until(lambda: bench.committed() >= 1)
    bench.say("wait")
    bench.say(*[f"w{n}" for n in range(50)])
    until(lambda: "wait" in bench.values())
    process.kill()
    process.wait()
    done = bench.committed()
    assert done <= int(next(line for line in bench.lines("begin") if line.endswith("wait")).split()[0])
    before = len(bench.values())
    (bench.folder / "out.go").touch()
    bench.start()
    until(lambda: "w49" in bench.values()[before:])
    again = bench.values()[before:]
    wanted = [*(f"v{n}" for n in range(50)), "wait", *(f"w{n}" for n in range(50))]
    assert again == wanted[-len(again) :]
    assert "wait" in again


@pytest.mark.parametrize(("word", "code"), [("boom", 1), ("fatal", 70), ("refused", 78)])
def test_a_handler_that_fails_ends_the_process(bench: Bench, word: str, code: int) -> None:
    bench.say("a0")
    process = bench.start()
    until(lambda: bench.committed() == 1)
    bench.say(word)
    bench.say("behind")
    assert process.wait(PATIENCE_S) == code
    assert bench.committed() == 1
    assert "behind" not in bench.lines("done")
    assert (
        word in (bench.folder / "out.log").read_text() or "told to" in (bench.folder / "out.log").read_text()
    )


def test_a_signal_lets_the_record_under_way_finish(bench: Bench) -> None:
    bench.say("wait", "next")
    process = bench.start()
    until(lambda: "wait" in bench.values())
    assert httpx.get(f"{bench.url()}/readyz", trust_env=False).status_code == 200
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    (bench.folder / "out.go").touch()
    assert process.wait(PATIENCE_S) == 0
    done = [int(offset) for offset in bench.lines("done")]
    assert done
    assert bench.committed() == done[-1] + 1


def test_one_slot_has_everything_and_another_takes_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROBE_SESSION_S", "5")
    first = bench.start("0")
    bench.say("a0")
    until(lambda: bench.values() == ["a0"])
    bench.start("1", "second")
    until(lambda: "another slot" in httpx.get(f"{bench.url(1)}/readyz", trust_env=False).text)
    bench.say("a1")
    until(lambda: "a1" in bench.values())
    assert bench.values("second") == []
    until(lambda: bench.committed() > 1)
    first.kill()
    first.wait()
    bench.say("a2")
    until(lambda: bench.values("second") == ["a2"])
