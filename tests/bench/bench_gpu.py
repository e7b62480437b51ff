"""The inference worker against the bare forward pass, for models of 10 kB, 10 MB and 500 MB.

The worker is the real one (consume, decode, score, encode, one transaction a batch); the broker is the one
that the client library carries in this process, so that nothing must be installed beside Python. For each
model, events/s of three things on the same device: the forward pass alone on vectors that lie there, the
worker, and the worker with rows scored one by one. Run: `python -m tests.bench.bench_gpu [--json FILE]`.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from confluent_kafka import Producer
from prometheus_client import CollectorRegistry

from schemas import FOLDER, platform_schema
from services.inference.core.decide import Decisions
from services.inference.core.fold import InferenceFold
from services.inference.core.lineup import ActiveModel
from services.inference.core.rows import Answering
from services.inference.core.scoring import Scored, Scorer
from services.inference.unit import ScoringUnit, Targets, Told
from shared.codec.batch import Batch, Floats, Strings
from shared.codec.frame import frame_prefix
from shared.codec.hashing import vector_hashes
from shared.contracts.generated import features_schema
from shared.contracts.pipeline import Pipeline, load_pipeline
from shared.models.announcement import Announcement
from shared.models.architectures import Network
from shared.models.building import Features, Provenance, build_artefact
from shared.models.loading import LoadedModel, load_model
from shared.models.manifest import Mlp
from shared.runtime.context import Context
from shared.runtime.deadletters import DeadLetterWriter
from shared.runtime.health import Health
from shared.runtime.instruments import Instruments
from shared.runtime.polled import Polled
from shared.runtime.snapshots import SnapshotStore
from shared.runtime.stage import Stage, Tuning
from shared.runtime.tables import Table
from shared.runtime.unit import Emission
from shared.runtime.worker import Worker
from shared.settings import KafkaSettings

MODELS = {"10kB": (48, 32), "10MB": (1600, 1500), "500MB": (11_000, 11_000)}
# The broker in the process gives a new topic this many partitions.
PARTITIONS = 4
MOST_ROWS = 400_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to run: seconds a measurement (by the bare pass's speed), and rows a poll."""

    device: str
    seconds: float
    batch_rows: int


class OneByOne(Scorer):
    """Scores each row in a call of its own."""

    def score(self, features: Floats) -> Scored:
        """As `Scorer.score`."""
        if len(features) <= 1:
            return Scorer.score(self, features)
        parts = [Scorer.score(self, features[i : i + 1]) for i in range(len(features))]
        return Scored(np.concatenate([p.scores for p in parts]), np.concatenate([p.bad for p in parts]))


class CountingUnit(ScoringUnit):
    """Notes when how many predictions had been committed."""

    def __init__(self, *arguments: Any, log: list[tuple[float, int]]) -> None:
        super().__init__(*arguments)
        self._log = log

    def step(self, polled: Sequence[Polled], now_ms: int) -> Emission:
        """As `ScoringUnit.step`."""
        emission = super().step(polled, now_ms)
        if emission.good:
            emission.after_commit.append(lambda: self._log.append((time.perf_counter(), emission.good)))
        return emission


def make_model(pipeline: Pipeline, hidden: tuple[int, ...], device: str) -> LoadedModel:
    """A random network of this size, through the same door as any other."""
    names = pipeline.feature_names
    architecture = Mlp(inputs=len(names), hidden=hidden)
    torch.manual_seed(1)
    network = Network(architecture, "float32")
    features = Features(names, pipeline.feature_fingerprint)
    samples = np.random.default_rng(1).normal(size=(4, len(names)))
    artefact = build_artefact(architecture, network, features, samples, Provenance({}, {}, {}))
    return load_model(artefact, pipeline.feature_fingerprint, names, device)


def bare(model: LoadedModel, plan: Plan) -> float:
    """Rows/s of the forward pass on vectors that lie on the device."""
    torch.set_num_threads(1)
    width = len(model.feature_names)
    rows = torch.randn((plan.batch_rows, width), dtype=torch.float64, device=model.device)
    done, begin = 0, 0.0
    with torch.inference_mode():
        for turn in range(1_000_000):
            model.network(rows)
            if turn == 0:
                _synchronise(model.device)
                begin = time.perf_counter()
                continue
            done += plan.batch_rows
            if turn % 8 == 0:
                _synchronise(model.device)
            if turn >= 3 and time.perf_counter() - begin > plan.seconds:
                break
        _synchronise(model.device)
    return done / (time.perf_counter() - begin)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def fill(producer: Producer, source: Table, pipeline: Pipeline, rows: int) -> None:
    """Put `rows` vectors on the input topic, evenly over its partitions."""
    rng = np.random.default_rng(2)
    pool = rng.normal(size=(64, len(pipeline.feature_names)))
    for number in range(PARTITIONS):
        count = rows // PARTITIONS
        index = np.arange(count, dtype=np.int64)
        matrix = np.ascontiguousarray(pool[index % len(pool)])
        columns: dict[str, Any] = {
            "event_id": Strings.of([b"%d-%d" % (number, i) for i in range(count)]),
            "key": Strings.of([b"k%d" % (i % 997) for i in range(count)]),
            "late": np.zeros(count, np.bool_),
            "feature_hash": vector_hashes(matrix),
        }
        columns |= dict.fromkeys(("event_time", "order_time", "source_offset", "input_offset"), index)
        columns |= dict.fromkeys(("source_partition", "input_partition"), np.full(count, number, np.int64))
        columns |= {f"features.{n}": matrix[:, j].copy() for j, n in enumerate(pipeline.feature_names)}
        values = source.write(Batch.of(columns)).to_list()
        producer.produce_batch(source.topic, [{"value": value} for value in values], partition=number)
        producer.flush(60)


def work(pipeline: Pipeline, scorer: Scorer, plan: Plan, rows: int, folder: Path) -> float:
    """Predictions/s of the worker over `rows` vectors, from its first commit to its last."""
    quiet = {"log_level": 0, "compression.type": "lz4", "queue.buffering.max.messages": 2_000_000}
    broker = Producer({**quiet, "test.mock.num.brokers": 1})
    found = broker.list_topics(timeout=30).brokers.values()
    kafka = KafkaSettings(bootstrap_servers=",".join(f"{each.host}:{each.port}" for each in found))
    source = Table.of(f"{pipeline.name}.features.v1", 1, features_schema(pipeline))
    target = Table.of(f"{pipeline.name}.predictions.v1", 2, platform_schema("prediction"))
    broker.list_topics(source.topic, timeout=30)
    broker.list_topics(target.topic, timeout=30)
    fill(broker, source, pipeline, rows)
    answering = Answering(Decisions([(d.label, d.start) for d in pipeline.model.decisions]))
    fold = InferenceFold(pipeline.feature_names, answering, "bench")
    said = Announcement("bench", 1, scorer.model.digest, pipeline.feature_fingerprint, 1, 0)
    fold.activate(ActiveModel(said, 0, scorer))
    log: list[tuple[float, int]] = []
    total = rows // PARTITIONS * PARTITIONS

    def done() -> None:
        if sum(good for _, good in log) >= total:
            worker.stop.set()

    stage = Stage(
        pipeline.name,
        "inference",
        "inference",
        (source.topic,),
        lambda _: CountingUnit(
            source, Targets(target, target), PARTITIONS, fold, Told(lambda _: None), log=log
        ),
        compression="none",
        stateless=True,
        refresh=done,
    )
    worker = Worker(stage, _context(pipeline, kafka, plan, folder))
    worker.run()
    seconds = log[-1][0] - log[0][0]
    return (sum(good for _, good in log) - log[0][1]) / seconds


def _context(pipeline: Pipeline, kafka: KafkaSettings, plan: Plan, folder: Path) -> Context:
    letters = DeadLetterWriter(
        "inference", f"{pipeline.name}.dlq.v1", platform_schema("dead_letter"), frame_prefix(3)
    )
    return Context(
        kafka=kafka,
        slot=0,
        store=SnapshotStore(str(folder), pipeline.name, "inference"),
        letters=letters,
        tuning=Tuning(max_records=plan.batch_rows),
        health=Health(),
        seen=Instruments.on(CollectorRegistry()),
        tell=lambda: None,
    )


def measure(name: str, pipeline: Pipeline, plan: Plan, folder: Path) -> dict[str, float]:
    """All figures of one model."""
    model = make_model(pipeline, MODELS[name], plan.device)
    scorer = Scorer(model)
    scorer.warm_up(np.zeros((plan.batch_rows, len(model.feature_names))))
    begin = time.perf_counter()
    single = OneByOne(model)
    single.score(np.zeros((8, len(model.feature_names))))
    single_rate = 8 / (time.perf_counter() - begin)
    rate = bare(model, plan)
    # At least four batches, since the first one is left out.
    rows = int(min(MOST_ROWS, max(rate * plan.seconds, 4 * plan.batch_rows)))
    few = Plan(plan.device, plan.seconds, min(plan.batch_rows, max(8, int(single_rate * plan.seconds / 4))))
    worker = work(pipeline, scorer, plan, rows, folder)
    alone = work(pipeline, single, few, min(rows, 4 * few.batch_rows), folder)
    rate = max(rate, bare(model, plan))  # other programs may have slowed one of the two down
    return {
        "bare_rows_per_second": rate,
        "worker_events_per_second": worker,
        "one_by_one_events_per_second": alone,
        "of_bare": worker / rate,
        "over_one_by_one": worker / alone,
    }


def run(models: Sequence[str] = tuple(MODELS), seconds: float = 4.0) -> dict[str, Any]:
    """Measure these models on a GPU if there is one, else on the CPU."""
    gpu = torch.cuda.is_available()
    plan = Plan("cuda" if gpu else "cpu", seconds, 8192 if gpu else 1024)
    pipeline = load_pipeline(FOLDER / "fraud")
    with tempfile.TemporaryDirectory() as folder:
        figures = {name: measure(name, pipeline, plan, Path(folder)) for name in models}
    where = torch.cuda.get_device_name() if gpu else f"CPU, one thread ({platform.machine()}): no GPU here"
    return {"device": where, "torch": torch.__version__, "batch_rows": plan.batch_rows, "models": figures}


def main() -> None:
    """Print a table; with --json write the figures too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    result = run(arguments.models, arguments.seconds)
    print(f"device: {result['device']}, {result['batch_rows']} rows a poll")
    print(f"{'model':>8} {'bare':>12} {'worker':>12} {'one by one':>12} {'of bare':>8} {'x single':>9}")
    for name, row in result["models"].items():
        rates = [row[f"{key}_per_second"] for key in ("bare_rows", "worker_events", "one_by_one_events")]
        cells = " ".join(f"{rate:>12,.0f}" for rate in rates)
        print(f"{name:>8} {cells} {row['of_bare']:>8.1%} {row['over_one_by_one']:>9.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
