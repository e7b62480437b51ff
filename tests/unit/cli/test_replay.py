"""What `millrace replay` sends of a file whose newest rows are of today."""

import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from services.cli.from_csv import Wish, files_from
from services.cli.replay import without_unknown
from services.cli.script import Script, labels_after_ms, read_rows, write_script
from shared.contracts.pipeline import parse_pipeline
from shared.runtime.merge import EVENT, LABEL

HOUR_MS = 3_600_000
ROWS = 300


def recent(tmp_path: Path, now_ms: int) -> Script:
    """A row an hour, the last one half an hour ago, its labels a hundred rows later."""
    times = [(now_ms - HOUR_MS // 2 - (ROWS - 1 - i) * HOUR_MS) // 1_000 for i in range(ROWS)]
    frame = pl.DataFrame(
        {"t": times, "x": [i * i % 7 / 2 for i in range(ROWS)], "y": [i % 2 for i in range(ROWS)]}
    )
    frame.write_csv(tmp_path / "rows.csv")
    wish = Wish("some", tmp_path / "rows.csv", "y", "t")
    pipeline = parse_pipeline(files_from(wish), "some", "some")
    return write_script(read_rows(wish.file, pipeline), pipeline, labels_after_ms(pipeline))


def test_labels_beyond_now_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now_ms = time.time_ns() // 1_000_000
    whole = recent(tmp_path, now_ms)
    assert int(whole.order.max()) > now_ms + 4 * 86_400_000
    known = without_unknown(whole, now_ms)
    assert int(known.order.max()) <= now_ms
    assert int(np.count_nonzero(known.kind == EVENT)) == ROWS, "every event is sent"
    assert int(np.count_nonzero(known.kind == LABEL)) == ROWS - 100
    assert np.isin(known.order, whole.order).all(), "what is sent stands where it stood"
    assert capsys.readouterr().err.startswith(
        "100 of 300 labels are left out: they would come later than now"
    )


def test_nothing_is_said_where_every_outcome_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = recent(tmp_path, 1_700_000_000_000)
    assert len(without_unknown(whole, time.time_ns() // 1_000_000)) == len(whole) == 2 * ROWS
    assert capsys.readouterr().err == ""
