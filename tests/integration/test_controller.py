"""The controller as a process on the real broker: decisions, commands by the command line, kills, and lockstep."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from schemas import FOLDER, platform_schema
from services.cli import models
from services.cli.governing import Governance
from services.controller.core.state import TRANSITION, Entry
from services.controller.journal import read_announcements
from shared.codec.batch import Strings
from shared.codec.frame import frame_prefix
from shared.contracts.pipeline import load_pipeline
from shared.control.publisher import Publisher
from shared.control.records import Record, Records
from shared.kafka.admin import ensure_topics
from shared.kafka.reader import read_topic
from shared.models.announcement import CHAMPION
from shared.models.signing import KeyFolder
from shared.runtime.control import ReplayWord
from shared.runtime.entry import Start, prepare
from shared.runtime.tables import Table
from shared.runtime.unit import Out
from shared.settings import PlatformSettings, home
from shared.store.artefacts import ArtefactStore
from shared.topics import AUDIT, COMMANDS, DLQ, MODELS, REPLAYS, SCORES
from tests.unit.controller.makers import BETTER, digest_of

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("stack")]
PATIENCE_S = 240.0
POLICY = "\n[policy.retrain]\n\n[policy.rollback]\nworse_by = 0.2\n"


@dataclass
class House:
    """A pipeline with a loop, its controller, and a pen for every topic that the controller reads."""

    start: Start
    process: "subprocess.Popen[bytes] | None" = None
    _pen: Publisher = field(init=False)

    def __post_init__(self) -> None:
        self._pen = Publisher(self.start.platform.kafka, "none")

    @property
    def name(self) -> str:
        return self.start.pipeline.name

    def run(self) -> None:
        command = [sys.executable, "-P", "-m", "services.controller", "--pipeline", self.name]
        self.process = subprocess.Popen(command)

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(30)
            self.process = None

    def write(self, topic: Any, record: Record) -> None:
        records = Records.of(topic, self.name, self.start.schema_ids)
        self._pen.write_now([records.out([("k", record)])])

    def raw(self, topic: Any, value: bytes) -> None:
        self._pen.write_now([Out(topic.of(self.name), Strings.of([b"k"]), Strings.of([value]))])

    def propose(self, number: int, **changes: Any) -> None:
        record = {
            "id": f"propose-{number}",
            "kind": "propose",
            "model_name": self.start.pipeline.model.name,
            "model_digest": digest_of(1_000 + number),
            "actor": "retrainer",
            "reason": "labels",
            "evidence": BETTER,
            "at": 0,
        }
        self.write(COMMANDS, record | changes)

    def accept(self, version: int, digest: str) -> None:
        record = {
            "kind": "model.accepted",
            "model_name": self.start.pipeline.model.name,
            "model_version": version,
            "model_digest": digest,
            "registry_offset": 0,
            "actor": "inference-0",
            "reason": "accepted",
            "detail": "",
            "at": 0,
        }
        self.write(AUDIT, record)

    def figure(self, sequence: int, version: int, value: float) -> None:
        record = {
            "sequence": sequence,
            "order_time": sequence * 1_000,
            "model_version": version,
            "model_digest": "",
            "role": "champion",
            "slice": "all",
            "metric": "log_loss",
            "value": value,
            "rows": 200,
            "total": sequence,
            "window": "rolling",
            "coverage": 1.0,
            "state": "provisional",
        }
        self.write(SCORES, record)

    def say(self, state: str) -> None:
        prefix = frame_prefix(self.start.schema_ids[REPLAYS.of(self.name)])
        self.raw(REPLAYS, ReplayWord("r", state, 0, 60_000, {}).encode(prefix))

    def entries(self) -> list[Entry]:
        return Governance(self.start).entries()

    def wait(self, done: Callable[[list[Entry]], bool]) -> list[Entry]:
        """The decisions, once they are as they should be."""
        deadline = time.monotonic() + PATIENCE_S
        while not done(entries := self.entries()):
            assert time.monotonic() < deadline, [f"{e.version} {e.state} {e.reason}" for e in entries]
            assert self.process is None or self.process.poll() is None
            time.sleep(0.1)
        return entries

    def wait_for(self, version: int, state: str) -> list[Entry]:
        return self.wait(lambda entries: any((e.version, e.state) == (version, state) for e in entries))

    def check_laws(self) -> None:
        """Sequences without a gap, one champion at any offset, models.v1 and audit.v1 of one mind."""
        transitions = [entry for entry in self.entries() if entry.kind == TRANSITION]
        assert [entry.sequence for entry in transitions] == list(range(1, len(transitions) + 1))
        states: dict[int, str] = {}
        for entry in transitions:
            states[entry.version] = entry.state
            assert sum(state == CHAMPION for state in states.values()) <= 1
        topic = MODELS.of(self.name)
        table = Table.of(topic, self.start.schema_ids[topic], platform_schema("model"))
        model = self.start.pipeline.model.name
        trusted = KeyFolder(home() / "keys").trusted()
        crowned = read_announcements(self.start.platform.kafka, table, model, trusted)
        assert [(said.sequence, said.version) for said in crowned] == [
            (entry.sequence, entry.version) for entry in transitions if entry.state == CHAMPION
        ]


@pytest.fixture
def house(pipeline_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    folder = tmp_path / pipeline_name
    folder.mkdir()
    for name in ("event.avsc", "label.avsc", "pipeline.toml"):
        text = (FOLDER / "fraud" / name).read_text()
        text = re.sub(r'name = "fraud"', f'name = "{pipeline_name}"', text, count=1)
        if name == "pipeline.toml":
            text = re.sub(r"(?s)\n\[policy\.batch\].*?(?=\n\[source\])", POLICY, text)
        (folder / name).write_text(text)
    monkeypatch.setenv("MILLRACE_SCHEMAS", str(tmp_path))
    assert os.environ["MILLRACE_HOME"]
    platform, pipeline = PlatformSettings(), load_pipeline(folder)
    ensure_topics(platform.kafka, pipeline)
    start = prepare(pipeline, platform)
    start.registry.close()
    made = House(start)
    made.run()
    yield made
    made.kill()


def call(*arguments: str) -> tuple[int, dict[str, Any]]:
    app = typer.Typer()
    models.register(app)
    result = CliRunner().invoke(app, ["models", *arguments, "--json"])
    return result.exit_code, json.loads(result.stdout)


def test_from_a_cold_start_to_a_promotion_and_back_by_hand(house: House) -> None:
    (first,) = house.wait_for(1, "champion")
    assert first.reason == "bootstrap"
    assert ArtefactStore(house.start.platform.artefacts_url).get(first.digest).digest == first.digest
    house.propose(1)
    house.wait_for(2, "shadow")
    house.accept(2, digest_of(1_001))
    house.wait_for(2, "champion")

    code, listed = call("list", house.name)
    assert code == 0
    assert [(row["version"], row["state"]) for row in listed["versions"]] == [(1, "retired"), (2, "champion")]
    assert listed["models"][-1]["state"] == "champion"
    stale = str(listed["sequence"] - 1)
    code, said = call("rollback", house.name, "--actor", "bob", "--expected-sequence", stale)
    assert code == 1
    assert "sequence.changed" in said["error"]
    assert "version 2 became champion" in said["error"]
    code, said = call("rollback", house.name, "--actor", "ann", "--reason", "complaints")
    assert code == 0
    assert [(row["version"], row["state"], row["actor"]) for row in said["decisions"][:2]] == [
        (2, "rolled_back", "ann"),
        (1, "champion", "ann"),
    ]
    code, said = call("promote", house.name, "2")
    assert code == 1
    assert "state.wrong" in said["error"]
    _, history = call("history", house.name)
    assert history["decisions"][-1]["reason"] == "state.wrong"
    _, shown = call("show", house.name, "2")
    assert {row["version"] for row in shown["decisions"]} == {2}
    _, at = call("at", house.name, "0")
    assert (at["version"], at["source"]) == (1, "audit")
    house.check_laws()


def test_garbage_is_a_dead_letter_and_an_alarmed_figure_undoes_a_promotion(house: House) -> None:
    house.raw(COMMANDS, b"garbage")
    house.figure(100, 1, 0.6)
    house.wait_for(1, "champion")
    house.propose(1)
    house.wait_for(2, "shadow")
    house.accept(2, digest_of(1_001))
    house.wait_for(2, "champion")
    house.figure(200, 2, 0.9)
    entries = house.wait_for(2, "rolled_back")
    assert entries[-1].labeled_sequence == 200
    letters = [p for p in read_topic(house.start.platform.kafka, DLQ.of(house.name)) if len(p)]
    assert sum(len(polled) for polled in letters) == 1
    house.check_laws()


def test_kills_lose_and_double_nothing(house: House) -> None:
    house.wait_for(1, "champion")
    for number in range(1, 9):
        house.propose(number)
        if number % 2:
            house.propose(number)  # sent again, as after a crash of the one who sends
        time.sleep(0.05 * (number % 4))
        house.kill()
        house.run()
        version = number + 1
        house.wait_for(version, "shadow")
        house.accept(version, digest_of(1_000 + number))
        if number % 3 == 0:
            house.kill()
            house.run()
        house.wait_for(version, "champion")
    transitions = [entry for entry in house.entries() if entry.kind == TRANSITION]
    assert [entry.version for entry in transitions if entry.state == "candidate"] == list(range(2, 10))
    assert [entry.version for entry in transitions if entry.state == "champion"] == list(range(1, 10))
    house.check_laws()


def test_in_lockstep_it_decides_at_rest(house: House) -> None:
    house.wait_for(1, "champion")
    house.say("STEP")
    time.sleep(1.0)
    house.propose(1)
    house.figure(100, 1, 0.6)
    time.sleep(1.0)
    house.kill()
    house.run()
    time.sleep(4.0)
    assert len(house.entries()) == 1
    house.say("REST")
    entries = house.wait_for(2, "shadow")
    assert entries[1].labeled_sequence == 100
    house.check_laws()
