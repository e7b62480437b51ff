"""Microseconds a row of the inference core on CPU: `Scorer.score`, and the whole fold with its encoding.

Run: `python -m tests.bench.bench_scoring`.
"""

import time
from collections.abc import Callable

import numpy as np

from schemas import FOLDER, platform_schema
from services.inference.core.decide import Decisions
from services.inference.core.fold import InferenceFold
from services.inference.core.lineup import ActiveModel
from services.inference.core.rows import Answering
from services.inference.core.scoring import Scorer
from shared.codec.batch import Batch, Strings
from shared.codec.program import compile_program
from shared.contracts.generated import features_schema
from shared.contracts.pipeline import load_pipeline
from shared.models.announcement import Announcement
from tests.bench.bench_gpu import make_model

ROWS = (1, 16, 256, 1024, 5000)


def best(work: Callable[[], object], seconds: float = 1.0) -> float:
    """Seconds of the fastest of many calls."""
    work()
    fastest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        work()
        fastest = min(fastest, time.perf_counter() - begin)
    return fastest


def main() -> None:
    """Print a table."""
    pipeline = load_pipeline(FOLDER / "fraud")
    reader, writer = (
        compile_program(features_schema(pipeline)),
        compile_program(platform_schema("prediction")),
    )
    scorer = Scorer(make_model(pipeline, (32, 16), "cpu"))
    fold = InferenceFold(
        pipeline.feature_names, Answering(Decisions([("approve", 0.0), ("review", 0.5)])), "fraud"
    )
    said = Announcement("fraud", 1, scorer.model.digest, pipeline.feature_fingerprint, 1, 0)
    fold.activate(ActiveModel(said, 0, scorer))
    print(f"{'rows':>6} {'score us/row':>14} {'fold us/row':>14} {'decode+fold+encode us/row':>26}")
    for rows in ROWS:
        matrix = np.random.default_rng(1).normal(size=(rows, len(pipeline.feature_names)))
        index = np.arange(rows, dtype=np.int64)
        whole = ("event_time", "order_time", "source_partition", "source_offset", "feature_hash")
        columns = dict.fromkeys((*whole, "input_partition", "input_offset"), index)
        batch = Batch.of(
            {
                **columns,
                "late": index < 0,
                "event_id": Strings.of([b"e%d" % i for i in index]),
                "key": Strings.of([b"k%d" % i for i in index]),
                **{f"features.{n}": matrix[:, j].copy() for j, n in enumerate(pipeline.feature_names)},
            }
        )
        values = reader.encode(batch)

        def through(values: Strings = values) -> Strings:
            return writer.encode(fold.step(reader.decode(values).batch).predictions, b"\0\0\0\0\1")

        times = (
            best(lambda matrix=matrix: scorer.score(matrix)),  # type: ignore[misc]
            best(lambda batch=batch: fold.step(batch)),  # type: ignore[misc]
            best(through),
        )
        score, step, path = (each * 1e6 / rows for each in times)
        print(f"{rows:>6} {score:>14.3f} {step:>14.3f} {path:>26.3f}")


if __name__ == "__main__":
    main()
