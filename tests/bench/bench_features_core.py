"""How fast the windows are, without a broker: `python -m tests.bench.bench_features_core`.

Uses the Handbook's payments where they are, else payments drawn at random with as many customers.
"""

import json
import time

import numpy as np

from services.features.core.fold import FeatureFold
from shared.codec.batch import Batch, Column, Strings
from shared.contracts.pipeline import find_pipeline, load_pipeline
from tests.unit.features.handbook import RAW, accepted, cuts

_ROUNDS = 3


def drawn(rows: int = 1_000_000) -> Batch:
    """Payments of 5,000 customers at 10,000 terminals over 122 days, as rows of accepted.v1."""
    rng = np.random.default_rng(1)
    times = np.sort(rng.integers(0, 122 * 86_400_000, rows)) + 1_522_540_800_000
    always, never = np.ones(rows, np.bool_), np.zeros(rows, np.bool_)
    nowhere = np.zeros(rows, np.int64)
    ids = Strings.of([b"%d" % n for n in range(rows)])
    customers = Strings.of([b"%d" % n for n in rng.integers(0, 5_000, rows)])
    terminals = Strings.of([b"%d" % n for n in rng.integers(0, 10_000, rows)])
    return Batch.of(
        {
            "order_time": times,
            "late": never,
            "source_partition": nowhere,
            "source_offset": np.arange(rows),
            "input_partition": nowhere,
            "input_offset": np.arange(rows),
            "event": always,
            "event.transaction_id": Column(ids, always),
            "event.tx_time": Column(times, always),
            "event.customer_id": Column(customers, always),
            "event.terminal_id": Column(terminals, always),
            "event.tx_amount": Column(rng.gamma(2.0, 30.0, rows), always),
            "label": never,
            "label.transaction_id": Column(ids, never),
            "label.tx_time": Column(times, never),
            "label.customer_id": Column(customers, never),
            "label.terminal_id": Column(terminals, never),
            "label.tx_fraud": Column(nowhere, never),
        }
    )


def measure(stage: int, batch: Batch, size: int, rounds: int = _ROUNDS) -> dict[str, float]:
    """The best of `rounds`: rows and events a second of one stage in batches of `size`, and its memory."""
    pipeline = load_pipeline(find_pipeline("fraud"))
    parts = cuts(batch, size)
    events = int(np.count_nonzero(batch["event"].array))
    best, memory = float("inf"), 0
    for _ in range(rounds):
        fold = FeatureFold(pipeline, stage, 0)
        begin = time.perf_counter()
        for part in parts:
            fold.step(part)
        best = min(best, time.perf_counter() - begin)
        memory = fold.nbytes()
    return {
        "batch_rows": size,
        "events_per_second": round(events / best),
        "rows_per_second": round(batch.rows / best),
        "call_us": round(best / len(parts) * 1e6, 1),
        "memory_mb": round(memory / 1e6, 1),
    }


def passed_on(batch: Batch) -> Batch:
    """What the second stage reads when the first has folded `batch`."""
    first = FeatureFold(load_pipeline(find_pipeline("fraud")), 0, 0)
    rows = Batch.concat([first.step(part) for part in cuts(batch, 20_000)])
    nowhere = np.zeros(rows.rows, np.int64)
    return rows.having(input_partition=nowhere, input_offset=np.arange(rows.rows))


def main() -> None:
    """Print one JSON object."""
    batch = accepted() if RAW.is_file() else drawn()
    events = batch.take(batch["event"].array)
    few = events.take(np.arange(20_000))
    measure(0, few, 2_000, 1)
    result = {
        "input": "handbook" if RAW.is_file() else "drawn",
        "customer_stage": measure(0, events, 2_000),
        "customer_stage_of_10": measure(0, few, 10),
        "terminal_stage_with_labels": measure(1, passed_on(batch), 2_000),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
