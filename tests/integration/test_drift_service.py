"""The drift service on a real broker: whatever kills come between, it tells what one fold would, and once."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from schemas import FOLDER
from services.drift.core.monitor import Monitor
from services.drift.rows import labeled_rows, profile_row
from shared.codec.batch import Batch
from shared.contracts.pipeline import load_pipeline
from shared.kafka.admin import ensure_topics
from shared.kafka.config import client_config
from shared.kafka.reader import read_topic
from shared.kafka.transactions import enqueue, producer_config
from shared.runtime.entry import Start, prepare
from shared.runtime.snapshots import SnapshotStore
from shared.runtime.unit import Out
from shared.settings import PlatformSettings, home
from tests.unit.drift import ledger

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("stack"), pytest.mark.timeout(900)]
PATIENCE_S = 300.0
ROWS = 8_000
CUT = 250
CHANCE = np.random.default_rng(9)
RATE = np.concatenate([np.repeat([0.1, 0.5, 0.1, 0.5], ROWS // 4), np.full(CUT, 0.1)])
ERRORS = (CHANCE.random(RATE.size) < RATE).astype(np.int64)
VERSIONS = np.where(np.arange(RATE.size) < ROWS // 2, 1, 2)


def until(what: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
    """The first true answer."""
    end = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.1)
    return answer


@pytest.fixture
def start(pipeline_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Elec2 with the loop declared, under a name of its own, with its topics."""
    folder = tmp_path / "schemas" / pipeline_name
    folder.mkdir(parents=True)
    for name in ("event.avsc", "label.avsc", "pipeline.toml"):
        text = (FOLDER / "elec2" / name).read_text()
        text = re.sub(r'name = "elec2"', f'name = "{pipeline_name}"', text, count=1)
        (folder / name).write_text(text + ("\n[policy.retrain]\n" if name == "pipeline.toml" else ""))
    monkeypatch.setenv("MILLRACE_SCHEMAS", str(folder.parent))
    pipeline = load_pipeline(folder)
    platform = PlatformSettings()
    ensure_topics(platform.kafka, pipeline)
    made = prepare(pipeline, platform)
    made.registry.close()
    return made


class Ledger:
    """Writes labeled.v1 and profiles.v1 as their services do: in transactions, some of which are aborted."""

    def __init__(self, start: Start) -> None:
        self.start, self.pipeline = start, start.pipeline
        self.labeled, self.profiles, self.drift = ledger.tables(start.pipeline, start.schema_ids)
        config = {**producer_config(start.platform.kafka, "lz4"), "transactional.id": start.pipeline.name}
        self.producer = Producer(config)
        self.producer.init_transactions(30.0)
        self.batches: list[Batch] = []
        self.next = 0

    def write(self, rows: int) -> None:
        """The next outcomes, and a profile, with a transaction before them that does not stand."""
        for _ in range(0, rows, CUT):
            lies = ledger.outcomes(self.pipeline, self.labeled, np.ones(CUT, np.int64), self.next)
            self._transaction(lies, commit=False)
            batch = ledger.outcomes(
                self.pipeline,
                self.labeled,
                ERRORS[self.next : self.next + CUT],
                self.next,
                model_version=VERSIONS[self.next : self.next + CUT],
            )
            self._transaction(batch, commit=True)
            self.batches.append(batch)
            self.next += CUT

    def _transaction(self, batch: Batch, commit: bool) -> None:
        self.producer.begin_transaction()
        enqueue(self.producer, Out(self.labeled.topic, None, self.labeled.write(batch)))
        profile = ledger.profile(self.pipeline, self.next // CUT)
        enqueue(self.producer, self.profiles.out([("0", profile)]))
        self.producer.flush(30.0)
        if commit:
            self.producer.commit_transaction(30.0)
        else:
            self.producer.abort_transaction(30.0)

    def profile(self, unit: int, number: int) -> None:
        """One profile in a transaction of its own."""
        self.producer.begin_transaction()
        enqueue(self.producer, self.profiles.out([(str(unit), ledger.profile(self.pipeline, number, unit))]))
        self.producer.flush(30.0)
        self.producer.commit_transaction(30.0)

    def expected(self) -> list[dict[str, Any]]:
        """The alarms of one fold over everything; the kernels are compiled where they were not."""
        names, policy = self.pipeline.feature_names, self.pipeline.policy.drift
        monitor = Monitor(policy, names, 2)
        whole = self.labeled.program.decode(self.labeled.program.encode(Batch.concat(self.batches))).batch
        return [alarm.record() for alarm in monitor.labeled(labeled_rows(whole, names, 2))]

    def told(self) -> list[dict[str, Any]]:
        """What stands on drift.v1."""
        parts = read_topic(self.start.platform.kafka, self.drift.topic)
        return [record for part in parts for record in self.drift.read(part)]

    def behind(self) -> int:
        """Records of both topics that the group has not committed, but for the marker behind the last ones."""
        group = {
            **client_config(self.start.platform.kafka),
            "group.id": f"millrace.{self.pipeline.name}.drift",
        }
        consumer = Consumer(group)
        try:
            topics = [TopicPartition(topic, 0) for topic in (self.labeled.topic, self.profiles.topic)]
            ends = [consumer.get_watermark_offsets(topic, timeout=10.0)[1] for topic in topics]
            places = consumer.committed(topics, timeout=10.0)
            left = [int(end) - 1 - max(0, int(at.offset)) for end, at in zip(ends, places, strict=True)]
            return sum(max(0, each) for each in left)
        finally:
            consumer.close()

    def comes_within(self, records: int) -> bool:
        """Whether the group has at most so many records to commit."""
        return self.behind() <= records


class Workers:
    """Drift processes, one after another."""

    def __init__(self, start: Start, folder: Path) -> None:
        self.name, self.log = start.pipeline.name, folder / "drift.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "services.drift", "--pipeline", self.name]
        environment = {"MILLRACE_DRIFT__SNAPSHOT_ROWS": "600", **os.environ}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        return self.process

    def until(self, what: Callable[[], Any]) -> Any:
        """The first true answer, while the process lives."""

        def asked() -> Any:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            return what()

        return until(asked)

    def ready(self) -> bool:
        """Whether the process is in its group: before, it has nothing to finish and dies of any signal."""
        note = home() / "run" / f"{self.name}.drift-0.json"
        try:
            url = json.loads(note.read_text())["url"]
            return bool(httpx.get(f"{url}/readyz", trust_env=False).status_code == 200)
        except (OSError, ValueError, httpx.TransportError):
            return False  # not written yet, or that of a process that was killed

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """As an operator does: with a snapshot at the end."""
        assert self.process is not None
        self.until(self.ready)
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0, self.log.read_text()


@pytest.fixture
def workers(start: Start, tmp_path: Path) -> Iterator[Workers]:
    made = Workers(start, tmp_path)
    yield made
    made.kill()


def test_kills_neither_lose_an_alarm_nor_repeat_one(start: Start, workers: Workers) -> None:
    chance = random.Random(4)
    book = Ledger(start)
    book.write(ROWS // 4)
    # A cold machine compiles for half a minute: once here, not once for each process that is killed over it.
    assert book.expected() == []
    workers.start()
    workers.until(lambda: book.behind() == 0)
    for part in range(1, 4):
        book.write(ROWS // 4)
        rest = chance.randrange(2_000)
        workers.until(partial(book.comes_within, rest))
        workers.kill()
        if part == 2:
            workers.start()
            time.sleep(chance.uniform(0.0, 3.0))
            workers.kill()
        workers.start()
    workers.until(lambda: book.behind() == 0)
    workers.stop()
    wanted = book.expected()
    assert len(wanted) >= 2
    told = [alarm for alarm in book.told() if alarm["family"] != "data"]
    assert told == wanted
    snapshots = list((home() / "snapshots" / start.pipeline.name / "drift" / "0").glob("*.npz"))
    assert snapshots
    # Without a snapshot everything is folded again from the beginning, and nothing is said twice.
    before = book.told()
    for path in snapshots:
        path.write_bytes(b"broken")
    workers.start()
    book.write(CUT)
    workers.until(lambda: book.behind() == 0)
    assert book.told()[: len(before)] == before
    assert len({alarm["id"] for alarm in book.told()}) == len(book.told())


def test_a_profile_acknowledged_before_a_kill_is_folded_after_it(
    start: Start, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a kill the first profile to come is another unit's, and tells nothing of the one lost."""
    monkeypatch.setenv("MILLRACE_DRIFT__SNAPSHOT_ROWS", "1000")
    monkeypatch.setenv("MILLRACE_DRIFT__SNAPSHOT_INTERVAL_S", "600")
    book = Ledger(start)
    book.profile(0, 0)
    book.profile(1, 0)
    workers.start()
    workers.until(lambda: book.behind() == 0)
    workers.stop()
    workers.start()
    book.profile(0, 1)
    workers.until(lambda: book.behind() == 0)
    workers.kill()
    book.profile(1, 1)
    book.profile(0, 2)
    workers.start()
    workers.until(lambda: book.behind() == 0)
    workers.stop()
    folded = Monitor(start.pipeline.policy.drift, start.pipeline.feature_names, 2)
    for unit, number in ((0, 0), (1, 0), (0, 1), (1, 1), (0, 2)):
        folded.profile(profile_row(ledger.profile(start.pipeline, number, unit)))
    store = SnapshotStore(start.platform.snapshots_url, start.pipeline.name, "drift")
    kept = store.newest(0, dict.fromkeys((book.labeled.topic, book.profiles.topic), 1 << 62))
    assert kept is not None
    assert kept.arrays["state"].tobytes() == folded.snapshot()
