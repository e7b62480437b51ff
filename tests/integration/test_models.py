"""`millrace models` against the real broker, registry and store."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from schemas import FOLDER
from services.cli import models
from shared.codec.batch import Column, Strings
from shared.contracts.generated import accepted_schema, features_schema
from shared.contracts.pipeline import Pipeline, load_pipeline
from shared.kafka.admin import ensure_topics
from shared.kafka.transactions import producer_config
from shared.runtime.entry import prepare
from shared.runtime.tables import Table, empty_rows
from shared.settings import PlatformSettings, home
from shared.topics import ACCEPTED, FEATURES

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("stack")]
ROWS = 600


@pytest.fixture
def pipeline(pipeline_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Fraud under a name of its own, and without its loop: what is trained here is announced at once."""
    folder = tmp_path / pipeline_name
    folder.mkdir()
    for name in ("event.avsc", "label.avsc", "pipeline.toml"):
        text = (FOLDER / "fraud" / name).read_text()
        text = re.sub(r'name = "fraud"', f'name = "{pipeline_name}"', text, count=1)
        text = re.sub(r"(?s)\n# [^\n]*\n\[\[policy\.slice\]\].*?(?=\n\[source\])", "", text)
        (folder / name).write_text(text)
    monkeypatch.setenv("MILLRACE_SCHEMAS", str(tmp_path))
    declared = load_pipeline(folder)
    assert not declared.loops
    return declared


def _fill(pipeline: Pipeline) -> None:
    """Vectors on two partitions, and a label for all but the last tenth: a high first feature is a fraud."""
    platform = PlatformSettings()
    ensure_topics(platform.kafka, pipeline)
    start = prepare(pipeline, platform)
    start.registry.close()
    ids = start.schema_ids
    index = np.arange(ROWS, dtype=np.int64)
    events = Strings.of([b"e%d" % i for i in index])
    rng = np.random.default_rng(5)
    matrix = rng.normal(size=(ROWS, len(pipeline.feature_names)))
    features = Table.of(
        FEATURES.of(pipeline.name), ids[FEATURES.of(pipeline.name)], features_schema(pipeline)
    )
    columns = {f"features.{name}": matrix[:, j].copy() for j, name in enumerate(pipeline.feature_names)}
    rows = empty_rows(features.program, ROWS).having(
        event_id=events, key=events, order_time=index, event_time=index, source_offset=index, **columns
    )
    accepted = Table.of(
        ACCEPTED.of(pipeline.name), ids[ACCEPTED.of(pipeline.name)], accepted_schema(pipeline)
    )
    present = index < ROWS * 0.9
    fraud = (matrix[:, 0] + 0.3 * rng.normal(size=ROWS) > 0.8).astype(np.int64)
    labels = empty_rows(accepted.program, ROWS).having(
        order_time=index,
        label=present,
        **{
            "label.transaction_id": Column(events, present),
            "label.customer_id": Column(events, present),
            "label.terminal_id": Column(events, present),
            "label.tx_time": Column(index, present),
            "label.tx_fraud": Column(fraud, present),
        },
    )
    producer = Producer(producer_config(platform.kafka, "none"))
    for table, batch in ((features, rows), (accepted, labels)):
        for place, value in enumerate(table.write(batch).to_list()):
            producer.produce(table.topic, value, partition=place % 2)
    assert producer.flush(30) == 0


def _call(*arguments: str) -> tuple[int, dict[str, Any]]:
    import typer

    app = typer.Typer()
    models.register(app)
    result = CliRunner().invoke(app, ["models", *arguments, "--json"])
    return result.exit_code, json.loads(result.stdout)


def test_train_announces_a_model_that_is_listed_and_verifies(pipeline: Pipeline) -> None:
    assert _call("list", pipeline.name)[0] == 75
    _fill(pipeline)
    code, first = _call("train", pipeline.name, "--min-rows", "500")
    assert code == 0
    assert (first["version"], first["sequence"], first["rows"]) == (1, 1, ROWS * 9 // 10)
    assert first["metrics"]["roc_auc"] > 0.9
    _, second = _call("train", pipeline.name, "--min-rows", "500")
    assert (second["version"], second["sequence"]) == (2, 2)
    assert second["digest"] == first["digest"]
    _, listed = _call("list", pipeline.name)
    rows = listed["models"]
    assert [(row["version"], row["trusted"], row["stored"]) for row in rows] == [
        (1, True, True),
        (2, True, True),
    ]
    code, verified = _call("verify", first["digest"][:10])
    assert code == 0
    offsets = verified["dataset"]["features"]["offsets"]
    assert {tuple(pair) for pair in offsets.values()} == {(0, ROWS // 2)}


def test_too_few_rows_are_refused_with_what_there_is(pipeline: Pipeline) -> None:
    _fill(pipeline)
    code, said = _call("train", pipeline.name, "--min-rows", "550", "--timeout", "1s")
    assert code == 1
    assert "540 rows with an outcome" in said["error"]
    assert "--min-rows" in said["error"]


def test_a_broken_artefact_does_not_verify(pipeline: Pipeline) -> None:
    _fill(pipeline)
    _, done = _call("train", pipeline.name, "--min-rows", "500", "--seed", "77")
    weights = home() / "artefacts" / done["digest"] / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    code, said = _call("verify", done["digest"])
    assert code == 1
    assert "digest.mismatch" in said["error"]
