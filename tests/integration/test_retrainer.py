"""The retrainer on the real broker: triggers to proposals, kills, limits, and datasets rebuilt from the log."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from confluent_kafka import Producer
from typer.testing import CliRunner

from services.cli import datasets
from services.retrainer.core.recipe import root_of
from services.retrainer.core.reign import Reign
from services.retrainer.core.segments import seal
from services.retrainer.kept import kept_of
from services.retrainer.ledger import KafkaLedger
from services.retrainer.outlook import DriftGroup, KafkaOutlook
from services.retrainer.releases import ModelsTopic
from shared.codec.batch import Batch
from shared.contracts.generated import labeled_schema
from shared.contracts.pipeline import Pipeline, load_pipeline
from shared.control.publisher import Publisher
from shared.control.records import Record, Records
from shared.kafka.admin import ensure_topics
from shared.kafka.reader import read_topic
from shared.kafka.transactions import producer_config
from shared.models.evidence import unpack
from shared.runtime.entry import Start, prepare
from shared.runtime.tables import Table
from shared.settings import PlatformSettings, home
from shared.store.artefacts import ArtefactStore
from shared.topics import COMMANDS, DRIFT, LABELED, REPLAYS, RUNS, SCORES, Topic
from tests.unit.retrainer.loops import alarm_record, rows_of, train_command, write_declaration
from tests.unit.retrainer.test_live import curves, score

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("stack"), pytest.mark.timeout(900)]
ROWS = 320


class Scene:
    """A pipeline with topics of its own, and retrainers on it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        platform = PlatformSettings()
        ensure_topics(platform.kafka, pipeline)
        self.start: Start = prepare(pipeline, platform)
        self.start.registry.close()
        self.processes: list[subprocess.Popen[bytes]] = []

    def fill(self, batch: Batch) -> None:
        """Write rows to labeled.v1."""
        topic = LABELED.of(self.pipeline.name)
        table = Table.of(topic, self.start.schema_ids[topic], labeled_schema(self.pipeline))
        producer = Producer(producer_config(self.start.platform.kafka, "gzip"))
        for value in table.write(batch).to_list():
            producer.produce(topic, value)
        assert producer.flush(30) == 0

    def send(self, topic: Topic, record: Record) -> None:
        """Write one of the platform's records."""
        records = Records.of(topic, self.pipeline.name, self.start.schema_ids)
        publisher = Publisher(self.start.platform.kafka)
        publisher.write_now([records.out([(str(record["id"]), record)])])
        publisher.close()

    def read(self, topic: Topic) -> list[Record]:
        """Everything on one of the platform's topics."""
        records = Records.of(topic, self.pipeline.name, self.start.schema_ids)
        polled = read_topic(self.start.platform.kafka, records.topic)
        return [record for each in polled for record in records.read(each)]

    def serve(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start a retrainer."""
        process = subprocess.Popen(
            [sys.executable, "-m", "services.retrainer", "--pipeline", self.pipeline.name],
            env={**os.environ, "MILLRACE_RETRAINER__NICENESS": "0", **environment},
        )
        self.processes.append(process)
        return process

    def ends(self) -> dict[str, str]:
        """How each run ended."""
        return {r["id"]: r["step"] for r in self.read(RUNS) if r["step"] in ("done", "failed", "skipped")}

    def proposals(self) -> list[Record]:
        """What was proposed."""
        return [record for record in self.read(COMMANDS) if record["kind"] == "propose"]


def until(true: Callable[[], bool], seconds: float = 400.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.3)


@pytest.fixture
def scene(pipeline_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    write_declaration(tmp_path / pipeline_name, pipeline_name, time_limit="5m")
    monkeypatch.setenv("MILLRACE_SCHEMAS", str(tmp_path))
    scene = Scene(load_pipeline(tmp_path / pipeline_name))
    yield scene
    for process in scene.processes:
        process.kill()
        process.wait()


def leave(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def drift(sequence: int) -> dict[str, Any]:
    return alarm_record(f"performance/adwin/error/{sequence}", sequence, sequence - 120)


def test_triggers_become_proposals_once_each(scene: Scene) -> None:
    scene.fill(rows_of(scene.pipeline, ROWS))
    scene.send(DRIFT, drift(150))
    process = scene.serve()
    until(lambda: len(scene.ends()) == 5)
    counted = ["first-59", "labels-99", "labels-199", "labels-299"]
    assert scene.ends() == dict.fromkeys([drift(150)["id"], *counted], "done")
    scene.send(DRIFT, drift(310))
    scene.send(COMMANDS, train_command("by-hand"))
    until(lambda: len(scene.ends()) == 7)
    assert scene.ends()[drift(310)["id"]] == "skipped"  # close behind the alarm before
    leave(process)
    again = scene.serve()  # what was done is known at the next start
    scene.send(COMMANDS, train_command("by-hand"))
    scene.send(COMMANDS, train_command("once-more"))
    until(lambda: "once-more" in scene.ends())
    leave(again)
    proposed = {record["id"]: record for record in scene.proposals()}
    assert len(scene.proposals()) == len(proposed) == 7
    store = ArtefactStore(scene.start.platform.artefacts_url)
    for record in proposed.values():
        parameters = json.loads(record["parameters"])
        assert unpack(record["evidence"]).sequences[-1] == parameters["sequence"]
        assert (
            store.get(record["model_digest"]).manifest.created_from["trigger"] == parameters["trigger"]["id"]
        )
    sequences = [json.loads(record["parameters"])["sequence"] for record in scene.proposals()[:5]]
    assert sequences == [59, 99, 150, 199, 299]  # by the ledger, not by topic
    drifted = json.loads(proposed["propose-performance/adwin/error/150"]["parameters"])
    assert (drifted["trigger"]["since"], drifted["sequence"]) == (30, 150)
    later = json.loads(proposed["propose-labels-199"]["parameters"])
    assert later["trigger"]["since"] == 30


def test_kills_at_any_moment_lose_and_double_nothing(scene: Scene) -> None:
    scene.fill(rows_of(scene.pipeline, ROWS))
    luck = random.Random(4)
    for _ in range(4):
        process = scene.serve(MILLRACE_RETRAINER__SPARE="false")
        time.sleep(luck.uniform(3.0, 9.0))
        process.kill()
        process.wait()
    process = scene.serve()
    until(lambda: len(scene.ends()) == 4)
    leave(process)
    records = scene.read(RUNS)
    finished = [(r["id"], r["step"]) for r in records if r["state"] in ("done", "cached")]
    assert len(finished) == len(set(finished))
    assert sorted(record["id"] for record in scene.proposals()) == [
        "propose-first-59",
        "propose-labels-199",
        "propose-labels-299",
        "propose-labels-99",
    ]


def test_an_alarm_written_while_it_was_down_is_taken_up(scene: Scene) -> None:
    """At once: the kept position lies not behind what the group acknowledged, and nothing more is to be folded."""
    scene.fill(rows_of(scene.pipeline, 60))
    process = scene.serve()
    until(lambda: len(scene.ends()) == 1)
    scene.fill(rows_of(scene.pipeline, 90).take(np.arange(60, 90)))
    topic, group = LABELED.of(scene.pipeline.name), f"millrace.{scene.pipeline.name}.retrainer"
    until(lambda: DriftGroup(scene.start.platform.kafka, group, topic).committed() >= 90)
    process.kill()
    process.wait()
    scene.send(DRIFT, drift(80))
    scene.serve(MILLRACE_RETRAINER__DRIFT_WAIT_S="600")
    until(lambda: len(scene.ends()) == 2, 120.0)
    assert drift(80)["id"] in scene.ends()


def _call(*arguments: str) -> tuple[int, dict[str, Any]]:
    app = typer.Typer()
    datasets.register(app)
    result = CliRunner().invoke(app, ["datasets", *arguments, "--json"])
    return result.exit_code, json.loads(result.stdout)


def test_datasets_are_rebuilt_from_the_log(scene: Scene) -> None:
    scene.fill(rows_of(scene.pipeline, 220))
    process = scene.serve()
    until(lambda: len(scene.ends()) == 3)
    leave(process)
    name = scene.pipeline.name
    code, said = _call("list", name)
    assert code == 0
    assert [each["cut_off"] for each in said["datasets"]] == [59, 99, 199]
    code, shown = _call("show", name, said["datasets"][2]["id"][:10])
    assert shown["dataset"]["counts"]["rows"] == {"all": 200, "events": 200, "shadow": 0}
    assert shown["dataset"]["topics"][0]["offsets"] == {"0": [0, 200]}
    code, differing = _call("diff", name, said["datasets"][1]["id"], said["datasets"][2]["id"])
    assert {"field": "cut_off", "before": 99, "after": 199} in differing["differences"]
    for each in said["datasets"]:
        assert _call("rebuild", name, each["id"])[0] == 0
    kept = kept_of(scene.start.platform.artefacts_url, name)
    manifest = kept.manifest(said["datasets"][2]["id"])
    wrong = rows_of(scene.pipeline, 220).take(np.arange(200))
    wrong["label_class"].array[7] ^= 1
    ledger = KafkaLedger.of(scene.start.platform.kafka, scene.pipeline, scene.start.schema_ids)
    data = seal(wrong, ledger.program)
    entry = manifest.segments[0].model_copy(update={"sha256": kept.put("segments", data)})
    forged = manifest.model_copy(update={"segments": (entry,), "root": root_of([entry])})
    code, said = _call("rebuild", name, kept.put_manifest(forged))
    assert code == 1
    assert "row 7, label_class" in said["error"]


def test_within_a_step_of_lockstep_no_verdict_is_waited_for(scene: Scene) -> None:
    """The controller decides behind the step, and the step ends behind the run: waiting would be in vain."""
    kafka, name, ids = scene.start.platform.kafka, scene.pipeline.name, scene.start.schema_ids
    outlook = KafkaOutlook(
        kafka,
        lambda: Reign(scene.pipeline.model.name, scene.pipeline.feature_fingerprint, {}),
        ModelsTopic(kafka, scene.pipeline, ids),
        Records.of(DRIFT, name, ids),
        REPLAYS.of(name),
        None,
        lambda _sequence: -1,
        0.0,
        90.0,
        lambda: False,
    )

    word = {"id": "replay", "order_time": 5, "lease_ms": 600_000, "next_offsets": {}}
    assert not outlook.within_step()
    scene.send(REPLAYS, {**word, "state": "STEP"})
    assert outlook.within_step()
    begin = time.monotonic()
    assert outlook.champion("0" * 64) == {}
    assert time.monotonic() - begin < 90
    scene.send(REPLAYS, {**word, "state": "REST"})
    assert not outlook.within_step()
    scene.send(REPLAYS, {**word, "state": "STEP"})
    scene.send(REPLAYS, {**word, "state": "CLOSED"})
    assert not outlook.within_step()


def test_training_beyond_its_limits_fails_and_the_service_lives(
    pipeline_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_declaration(tmp_path / pipeline_name, pipeline_name, time_limit="1ms", memory="4GiB")
    monkeypatch.setenv("MILLRACE_SCHEMAS", str(tmp_path))
    scene = Scene(load_pipeline(tmp_path / pipeline_name))
    scene.fill(rows_of(scene.pipeline, 120))
    process = scene.serve()
    try:
        until(lambda: len(scene.ends()) == 2)
        assert scene.ends() == {"first-59": "failed", "labels-99": "failed"}
        assert process.poll() is None
        reasons = [json.loads(r["detail"])["reason"] for r in scene.read(RUNS) if r["step"] == "failed"]
        assert reasons == ["time", "time"]
        assert scene.proposals() == []
        leave(process)
    finally:
        process.kill()
        process.wait()


def test_figures_of_models_in_service_are_on_the_board(scene: Scene) -> None:
    for total in (100, 200):
        scene.send(SCORES, {"id": "x", **score(total, 0.5)})
    process = scene.serve(MILLRACE_RETRAINER__SPARE="false")
    folder = home() / "tensorboard" / scene.pipeline.name / "live"
    until(lambda: len(curves(folder).get("log_loss/all/v3-champion", [])) == 2)
    leave(process)
