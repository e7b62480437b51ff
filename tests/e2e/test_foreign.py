"""A client in another language, with nothing of ours, sends payments and is answered."""

import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.cli.journey import Journey
from services.cli.untrained import announce_untrained
from services.cli.variants import write_variant
from services.stack.endpoints import Endpoints
from shared.codec.hashing import partition_of
from shared.contracts.pipeline import find_pipeline
from shared.kafka.reader import read_topic
from shared.topics import EVENTS, PREDICTIONS

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
FILES = ("client.js", "package.json", "package-lock.json")
EVENTS_SENT = 500
DEADLINE_S = 120


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Node program with what its lock file names, in a folder of its own."""
    absent = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    if absent:
        pytest.skip(f"{' and '.join(absent)} not found: the foreign client is a Node program")
    folder = tmp_path_factory.mktemp("foreign")
    for name in FILES:
        shutil.copy(ROOT / "tests/foreign" / name, folder / name)
    done = _run(["npm", "ci", "--no-audit", "--no-fund", "--silent", "--ignore-scripts"], folder, 240)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_foreign_client_is_answered_once(
    client: Path, stack: Endpoints, pipeline_name: str, tmp_path: Path
) -> None:
    folder = write_variant(find_pipeline("fraud"), tmp_path, pipeline_name)
    journey = Journey(folder)
    announce_untrained(journey)
    with journey:
        said = _converse(client, stack, pipeline_name)
    labels = said.pop("labels")
    assert said == {"sent": EVENTS_SENT, "answered": EVENTS_SENT, "doubled": 0}
    assert sum(labels.values()) == EVENTS_SENT
    assert set(labels) <= {decision.label for decision in journey.pipeline.model.decisions}
    assert _misplaced(journey, EVENTS.of(pipeline_name)) == 0
    assert _misplaced(journey, PREDICTIONS.of(pipeline_name)) == 0


def _converse(client: Path, stack: Endpoints, pipeline: str) -> dict[str, Any]:
    options = {
        "bootstrap": stack.bootstrap_servers,
        "registry": stack.registry_url,
        "pipeline": pipeline,
        "events": EVENTS_SENT,
        "deadline": DEADLINE_S,
    }
    command = ["node", "client.js", *(f"--{name}={value}" for name, value in options.items())]
    done = _run(command, client, DEADLINE_S + 60)
    assert done.stdout, f"the client ended with {done.returncode} and no word: {done.stderr}"
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def _misplaced(journey: Journey, topic: str) -> int:
    """How many records lie in another partition than their key's, by Java's rule."""
    wrong: Counter[int] = Counter()
    for polled in read_topic(journey.platform.kafka, topic):
        places = partition_of(polled.keys, journey.pipeline.partitions)
        wrong[polled.partition] += int(np.count_nonzero(places != polled.partition))
    return wrong.total()


def _run(command: list[str], folder: Path, limit_s: float) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    return subprocess.run(
        command, cwd=folder, env=clean, capture_output=True, text=True, timeout=limit_s, check=False
    )
