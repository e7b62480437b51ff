"""The Fraud Detection Handbook's payments, as rows in merged order, and its published features."""

from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from shared.codec.batch import Batch, Column, Ints, Strings

FOLDER = Path(__file__).resolve().parents[3].parent / "shared" / "data"
RAW = FOLDER / "fraud_raw_2018-04_07.csv.gz"
TRUTHS = (FOLDER / "fraud_features_2018-04-01_07.csv.gz", FOLDER / "fraud_features_2018-07-25_31.csv.gz")
EPOCH_MS = 1_522_540_800_000
LABEL_DELAY_MS = 7 * 86_400_000

needs_handbook = pytest.mark.skipif(
    not RAW.is_file(), reason="the Handbook's payments are not there: put them in ../shared/data"
)


@cache
def raw() -> pl.DataFrame:
    """All payments in order."""
    return pl.read_csv(RAW).sort("TRANSACTION_ID")


def accepted(rows: int | None = None) -> Batch:
    """The payments and, seven days behind each, its label, as rows of accepted.v1 in merged order."""
    frame = raw().head(rows) if rows else raw()
    size = len(frame)
    time = EPOCH_MS + 1000 * frame["TX_TIME_SECONDS"].to_numpy().astype(np.int64)
    order_time = np.concatenate([time + LABEL_DELAY_MS, time])
    is_event = np.repeat([False, True], size)
    order = np.lexsort((np.tile(np.arange(size), 2), is_event, order_time))
    pick, event = np.concatenate([np.arange(size), np.arange(size)])[order], is_event[order]
    shared = {
        "transaction_id": Column(_texts(frame["TRANSACTION_ID"]).take(pick)),
        "tx_time": Column(time[pick]),
        "customer_id": Column(_texts(frame["CUSTOMER_ID"]).take(pick)),
        "terminal_id": Column(_texts(frame["TERMINAL_ID"]).take(pick)),
    }
    columns = {
        "order_time": Column(order_time[order]),
        "late": Column(np.zeros(2 * size, np.bool_)),
        "source_partition": Column(np.zeros(2 * size, np.int64)),
        "source_offset": Column(pick),
        "input_partition": Column(np.zeros(2 * size, np.int64)),
        "input_offset": Column(np.arange(2 * size)),
        "event": Column(event),
        "label": Column(~event),
        **{f"event.{name}": Column(c.values, event) for name, c in shared.items()},
        **{f"label.{name}": Column(c.values, ~event) for name, c in shared.items()},
        "event.tx_amount": Column(frame["TX_AMOUNT"].to_numpy().astype(np.float64)[pick], event),
        "label.tx_fraud": Column(frame["TX_FRAUD"].to_numpy().astype(np.int64)[pick], ~event),
    }
    return Batch(columns, 2 * size)


def cuts(batch: Batch, size: int) -> list[Batch]:
    """The batch in pieces of so many rows."""
    edges: Ints = np.arange(0, batch.rows, size)
    return [batch.take(np.arange(at, min(at + size, batch.rows))) for at in edges.tolist()]


def _texts(series: pl.Series) -> Strings:
    return Strings.of([b"%d" % number for number in series.to_list()])
