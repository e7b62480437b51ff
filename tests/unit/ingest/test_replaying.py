"""From rows of a file to what is sent: order, times, keys, pace; and which dead letters wait."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from services.cli.letters import REDRIVEN, Letter, sent_headers, waiting, without_marks
from services.cli.replaying import Pace, _schedule
from services.cli.script import Script, read_rows, spread, write_script
from shared.contracts.pipeline import Pipeline, find_pipeline, load_pipeline
from shared.errors import Refused
from shared.runtime.merge import EVENT
from tests.unit.ingest.makers import FRAUD

EPOCH = 1_522_540_800_000
ELEC2 = load_pipeline(find_pipeline("elec2"))
DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


def _frame(
    seconds: list[int], ids: list[int] | None = None, frauds: list[int | None] | None = None
) -> pl.DataFrame:
    count = len(seconds)
    return pl.DataFrame(
        {
            "TRANSACTION_ID": ids if ids is not None else list(range(count)),
            "TX_TIME_SECONDS": seconds,
            "CUSTOMER_ID": [f"{i % 3:03d}" for i in range(count)],
            "TERMINAL_ID": ["7"] * count,
            "TX_AMOUNT": [1.5] * count,
            "TX_FRAUD": frauds if frauds is not None else [0] * count,
        }
    )


def _told(script: Script) -> list[str]:
    return [
        f"{'e' if k == EVENT else 'l'}{r}"
        for k, r in zip(script.kind.tolist(), script.row.tolist(), strict=True)
    ]


def test_labels_follow_their_events_and_come_first_at_ties() -> None:
    script = write_script(_frame([0, 10, 20]), FRAUD, 10_000)
    assert _told(script) == ["e0", "l0", "e1", "l1", "e2", "l2"]
    assert (script.order - EPOCH).tolist() == [0, 10_000, 10_001, 20_000, 20_001, 30_000]


def test_rows_of_one_second_go_by_the_order_column() -> None:
    script = write_script(_frame([5, 5, 5], ids=[30, 10, 20]), FRAUD, None)
    assert _told(script) == ["e1", "e2", "e0"]
    assert (script.order - EPOCH).tolist() == [5_000, 5_001, 5_002]
    assert script.events["tx_time"].array.tolist() == [EPOCH + 5_000] * 3, "the event's own time stays"


def test_texts_keep_their_zeros_and_keys_follow_java() -> None:
    script = write_script(_frame([1, 2, 3]), FRAUD.model_copy(update={"partitions": 4}), None)
    assert script.keys.to_list() == [b"000", b"001", b"002"]
    assert script.events["transaction_id"].strings.to_list() == [b"0", b"1", b"2"]
    assert set(script.partitions.tolist()) <= {0, 1, 2, 3}


def test_rows_without_a_label_have_none() -> None:
    script = write_script(_frame([1, 2], frauds=[None, 1]), FRAUD, 1_000)
    assert _told(script) == ["e0", "l1", "e1"] or _told(script) == ["e0", "e1", "l1"]


@pytest.mark.parametrize(
    ("times", "expected"),
    [([5], [5]), ([5, 5], [5, 6]), ([5, 5, 6, 6], [5, 6, 7, 8]), ([5, 5, 9], [5, 6, 9])],
)
def test_order_times_are_strictly_increasing(times: list[int], expected: list[int]) -> None:
    assert spread(np.array(times, np.int64)).tolist() == expected


def test_numbered_rows_have_times_by_interval() -> None:
    frame = pl.DataFrame(
        {name: [0.5, 0.5] for name in ELEC2.source.event if ELEC2.source} if ELEC2.source else {}
    )
    frame = frame.with_columns(pl.Series("day", [1, 2]), pl.Series("class", ["UP", "DOWN"]))
    script = write_script(frame, ELEC2, 0, first_row=10)
    assert script.events["row_id"].strings.to_list() == [b"10", b"11"]
    assert np.diff(script.events["event_time"].array).tolist() == [1_800_000]


def test_a_csv_is_read_from_a_row_on_as_texts_where_texts_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    _frame([1, 2, 3, 4]).write_csv(path)
    frame = read_rows(path, FRAUD, start=1, limit=2)
    assert frame["TX_TIME_SECONDS"].to_list() == [2, 3]
    assert frame["CUSTOMER_ID"].to_list() == ["001", "002"]


def test_a_parquet_file_gives_the_same(tmp_path: Path) -> None:
    _frame([1, 2, 3]).write_parquet(tmp_path / "rows.parquet")
    _frame([1, 2, 3]).write_csv(tmp_path / "rows.csv")
    scripts = [write_script(read_rows(tmp_path / n, FRAUD), FRAUD, 1) for n in ("rows.parquet", "rows.csv")]
    assert _told(scripts[0]) == _told(scripts[1])
    assert scripts[0].keys.to_list() == scripts[1].keys.to_list()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no file"), ("a,b\n1,2\n", "cannot be read"), ("", "cannot be read")],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "rows.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Refused, match=message):
        read_rows(path, FRAUD)


def test_a_pipeline_without_source_says_so() -> None:
    bare: Pipeline = FRAUD.model_copy(update={"source": None})
    with pytest.raises(Refused, match=r"add \[source\]"):
        write_script(_frame([1]), bare, None)


def test_no_rows_are_refused() -> None:
    with pytest.raises(Refused, match="no rows"):
        write_script(_frame([]), FRAUD, None)


@pytest.mark.parametrize(
    ("pace", "elapsed_s", "sent"),
    [
        (Pace(), 0.0, 6),
        (Pace(rate=1.0), 0.0, 2),
        (Pace(rate=1.0), 1.0, 4),
        (Pace(rate=1.0), 9.0, 6),
        (Pace(speed=1.0), 0.0, 1),
        (Pace(speed=1.0), 10.0, 2),
        (Pace(speed=10.0), 2.1, 5),
    ],
)
def test_the_pace_says_how_much_is_due(pace: Pace, elapsed_s: float, sent: int) -> None:
    script = write_script(_frame([0, 10, 20]), FRAUD, 10_000)
    assert _schedule(script, pace)(elapsed_s) == sent


@pytest.mark.parametrize(("rate", "speed"), [(1.0, 1.0), (0.0, None), (None, -1.0)])
def test_a_pace_that_makes_no_sense_is_refused(rate: float | None, speed: float | None) -> None:
    with pytest.raises(Refused):
        Pace(rate, speed)


def test_the_whole_demonstration_file_has_one_order() -> None:
    path = DATA / "fraud_raw_2018-04_07.csv.gz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not here: it is no part of the project")
    script = write_script(read_rows(path, FRAUD), FRAUD, 7 * 86_400_000)
    assert len(script) == 2 * 1_169_723
    assert int(np.diff(script.order).min()) == 1
    events = script.row[script.kind == EVENT]
    assert np.array_equal(events, np.arange(events.size)), "TRANSACTION_ID is the order"


# Dead letters.


def _letter(number: int, reason: str = "avro.eof", offset: int = 0, attempt: int = 1) -> Letter:
    return Letter(
        number, "ingest", reason, "BadRecord", "", "p.events.v1", 0, offset, 1, b"k", b"v", [], attempt
    )


def test_what_was_sent_again_no_longer_waits() -> None:
    letters = [_letter(0), _letter(1, offset=1), _letter(2, REDRIVEN), _letter(3, "key.null", 2)]
    assert [letter.number for letter in waiting(letters, None)] == [1, 3]
    assert [letter.number for letter in waiting(letters, "key.null")] == [3]
    assert [letter.number for letter in waiting(letters, None, [0, 1])] == [1]
    assert [(letter.number, done) for letter, done in without_marks(letters)] == [
        (0, True),
        (1, False),
        (3, False),
    ]


def test_attempts_are_counted_by_us_alone() -> None:
    faked = _letter(0, attempt=3)
    faked = Letter(
        **{**{f: getattr(faked, f) for f in Letter.__slots__}, "headers": [("millrace-attempt", b"0")]}
    )
    assert sent_headers(faked) == [("millrace-attempt", b"3")]
