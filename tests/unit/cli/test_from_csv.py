"""Any file to a declaration that passes every check, and back: its rows make events and labels."""

import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from services.cli.columns import avro_name, features_of
from services.cli.from_csv import Wish, files_from
from services.cli.main import build
from services.cli.script import labels_after_ms, read_rows, write_script
from shared.contracts.pipeline import Pipeline, parse_pipeline
from shared.errors import DeclarationError, Refused

ROWS = 300


def declared(path: Path, label: str = "y", **more: str) -> Pipeline:
    """The pipeline that is written for a file."""
    texts = files_from(Wish("some", path, label, **more))
    return parse_pipeline(texts, "some", "some")


def table(columns: int, classes: int, seed: int = 1) -> pl.DataFrame:
    """Numbers and a label of so many classes."""
    random = np.random.default_rng(seed)
    numbers = {f"x{i}": random.normal(size=ROWS) for i in range(columns)}
    return pl.DataFrame(numbers | {"y": np.arange(ROWS) % classes})


def written(frame: pl.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    frame.write_csv(path)
    return path


@pytest.mark.parametrize(("columns", "classes"), [(10, 2), (60, 2), (25, 3), (60, 12)])
def test_numbers_and_classes_become_a_pipeline_with_a_loop(
    tmp_path: Path, columns: int, classes: int
) -> None:
    path = written(table(columns, classes), tmp_path)
    pipeline = declared(path)
    assert pipeline.loops
    assert len(pipeline.feature_names) == columns
    assert pipeline.label is not None
    assert pipeline.label.classes == tuple(range(classes))
    assert [d.label for d in pipeline.model.decisions] == (["0", "1"] if classes == 2 else [])


def test_rows_without_a_time_are_numbered_and_spread_over_the_partitions(tmp_path: Path) -> None:
    path = written(table(10, 2), tmp_path)
    pipeline = declared(path)
    delay_ms = labels_after_ms(pipeline)
    assert delay_ms == 100_000
    assert pipeline.label is not None
    assert pipeline.label.horizon_ms > delay_ms, "a label that comes as usual is in time"
    script = write_script(read_rows(path, pipeline), pipeline, delay_ms)
    assert len(script) == 2 * ROWS
    assert np.diff(script.events["event_time"].array).tolist() == [1_000] * (ROWS - 1)
    assert np.bincount(script.partitions).min() > 40


def odd(path: Path) -> Path:
    chance = random.Random(1)
    head = 'id,a b,class,2nd,flag,when,cat,const,"=x",Größe,y\n'
    lines = [
        ",".join(
            [
                str(i),
                "?" if i % 7 == 0 else f" {chance.gauss(0, 1):.3f}",
                str(chance.randint(0, 9)),
                "" if i % 5 == 0 else str(chance.random()),
                chance.choice(["true", "false"]),
                f"2020-01-01 00:00:{i % 60:02d}",
                chance.choice("abc"),
                "1",
                "3",
                "NaN" if i % 3 == 0 else str(i * 0.5),
                chance.choice(["lo", "mid", '"a ""high"" one"', ""]),
            ]
        )
        for i in range(ROWS)
    ]
    path.write_text(head + "\n".join(lines) + "\n")
    return path


def test_odd_names_and_missing_values_are_taken_as_they_come(tmp_path: Path) -> None:
    path = odd(tmp_path / "odd.csv")
    pipeline = declared(path)
    features = ["a_b", "a_b_is_missing", "class_", "c_2nd", "c_2nd_is_missing", "flag"]
    assert list(pipeline.feature_names) == [*features, "Gro_e", "Gro_e_is_missing"]
    script = write_script(read_rows(path, pipeline), pipeline, 1_000)
    missing = {name: int((~script.events[name].mask()).sum()) for name in ("a_b", "c_2nd", "Gro_e", "class_")}
    assert missing == {"a_b": 43, "c_2nd": 60, "Gro_e": 100, "class_": 0}
    assert pipeline.label is not None
    assert pipeline.label.classes == ('a "high" one', "lo", "mid")
    assert script.labels is not None
    labelled = int((script.kind == 0).sum())
    assert labelled == pl.read_csv(path)["y"].count(), "a row without outcome has no label"


def test_what_is_left_out_is_said_with_its_reason(tmp_path: Path) -> None:
    text = files_from(Wish("some", odd(tmp_path / "odd.csv"), "y"))["pipeline.toml"]
    assert [line for line in text.splitlines() if line.startswith("# Left")] == [
        "# Left out: column id, counts the rows.",
        "# Left out: column when, not a number.",
        "# Left out: column cat, not a number.",
        "# Left out: column const, the same in every row.",
        "# Left out: column =x, [source] cannot name it.",
    ]


@pytest.mark.parametrize(
    ("times", "unit", "first_ms"),
    [
        ([1_700_000_000, 1_700_000_060, 1_700_000_120], "s", 1_700_000_000_000),
        ([1_700_000_000_000, 1_700_000_060_000, 1_700_000_120_000], "ms", 1_700_000_000_000),
        ([0.0, 60.0, 120.0], "s", 1_577_836_800_000),
        (["2023-11-14T22:13:20Z", "2023-11-14T22:14:20Z", "2023-11-14T22:15:20Z"], "iso", 1_700_000_000_000),
        (["2023-11-14 22:13:20", "2023-11-14 22:14:20", "2023-11-14 22:15:20"], "iso", 1_700_000_000_000),
    ],
)
def test_times_are_seen_for_what_they_are(
    tmp_path: Path, times: list[object], unit: str, first_ms: int
) -> None:
    frame = pl.DataFrame({"t": times, "x": [1.0, 2.0, 4.0], "k": ["a", "b", "a"], "y": ["n", "p", "n"]})
    path = written(frame, tmp_path)
    pipeline = declared(path, time="t", key="k")
    assert pipeline.source is not None
    assert (pipeline.source.time_unit, labels_after_ms(pipeline)) == (unit, 6_000_000)
    assert pipeline.feature_names == ("x",)
    assert pipeline.label is not None
    assert pipeline.label.positive == "p", "the rarer class"
    script = write_script(read_rows(path, pipeline), pipeline, None)
    assert script.events["event_time"].array.tolist() == [first_ms + i * 60_000 for i in range(3)]
    assert script.keys.to_list() == [b"a", b"b", b"a"]


DAY_S = 86_400


@pytest.mark.parametrize(
    ("times", "after_ms"),
    [
        ([i // 50 * DAY_S for i in range(2_000)], 2 * DAY_S * 1_000),
        ([i // 5_000 * DAY_S for i in range(20_000)], DAY_S * 1_000),
        ([i * 60 for i in range(2_000)], 6_000_000),
        ([i // 2 * 60 for i in range(2_000)], 3_000_000),
        ([60 * i for i in (5, 1, 4, 2, 3)], 6_000_000),
        ([7] * 50, 100_000),
    ],
    ids=["days of 50 rows", "days of 5,000 rows", "minutes", "pairs", "few and in no order", "one instant"],
)
def test_a_label_comes_a_hundred_rows_later_also_where_times_are_tied(
    tmp_path: Path, times: list[int], after_ms: int
) -> None:
    frame = pl.DataFrame(
        {"t": times, "x": [i % 7 / 2 for i in range(len(times))], "y": [i % 2 for i in range(len(times))]}
    )
    assert labels_after_ms(declared(written(frame, tmp_path), time="t")) == after_ms


@pytest.mark.parametrize(
    ("classes", "positive"), [(("No", "Yes"), "Yes"), (("a", "b"), "b"), (("t", "y"), "y")]
)
def test_the_class_that_says_yes_is_positive(tmp_path: Path, classes: tuple[str, str], positive: str) -> None:
    common, rare = classes
    # "Yes" is the common one of the first: what it says counts, not how often.
    outcomes = [rare, rare, common] if positive == "Yes" else [common, common, rare]
    frame = pl.DataFrame({"x": [1.0, 2.0, 4.0], "y": outcomes})
    label = declared(written(frame, tmp_path)).label
    assert label is not None
    assert label.positive == positive


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"label": "z"}, "--label z: no such column"),
        ({"label": "x0"}, "300 different values; a label has 2 to 12 classes"),
        ({"time": "z"}, "--time z: no such column"),
        ({"time": "word"}, "'w' is not a time"),
        ({"time": "late"}, "row \\d+ goes beyond today"),
        ({"time": "old"}, "--time old: row 3 stands before 1970"),
        ({"time": "older"}, "--time older: row 1 stands before 1970"),
        ({"time": "far"}, "row \\d+ goes beyond today"),
        ({"key": "gap"}, "--key gap: empty in 1 rows"),
        ({"time": "gap"}, "--time gap: empty in 1 rows"),
    ],
)
def test_columns_that_cannot_serve_are_refused_by_name(
    tmp_path: Path, more: dict[str, str], message: str
) -> None:
    frame = table(2, 2).with_columns(
        word=pl.lit("w"),
        late=pl.lit(9_000_000_000),
        gap=pl.Series([None, *range(1, ROWS)]),
        old=pl.Series([1e9, 2e8, 3e8, -1e10, *range(4, ROWS)]),
        older=pl.Series(["2001-01-01T00:00:00Z", "1969-12-31T23:59:59Z"] * (ROWS // 2)),
        far=pl.Series([0.0, 1e9] * (ROWS // 2)),
    )
    wish = {"label": "y", **more}
    with pytest.raises(Refused, match=message):
        declared(written(frame, tmp_path), **wish)


def test_a_parquet_file_is_declared_alike(tmp_path: Path) -> None:
    frame = table(10, 3).with_columns(x1=pl.when(pl.int_range(ROWS) % 4 > 0).then("x1"))
    frame.write_parquet(tmp_path / "rows.parquet")
    csv, parquet = written(frame, tmp_path), tmp_path / "rows.parquet"
    scripts = [write_script(read_rows(p, declared(p)), declared(p), 1_000) for p in (csv, parquet)]
    assert declared(parquet).feature_names[:3] == ("x0", "x1", "x1_is_missing")
    for name in ("x0", "x1"):
        assert scripts[0].events[name].array.tolist() == scripts[1].events[name].array.tolist()
        assert scripts[0].events[name].mask().tolist() == scripts[1].events[name].mask().tolist()


def test_field_names_are_never_taken_twice() -> None:
    frame = pl.DataFrame({"a b": [1.0, 2.0], "a_b": [1.0, 2.0], "event_id": [1.0, 2.5]})
    features, left = features_of(frame, (), {"event_id"})
    assert [each.field for each in features] == ["a_b", "a_b_2", "event_id_2"]
    assert left == []
    assert avro_name("features", ()) == "features_"


@pytest.mark.parametrize(
    "columns",
    [("age_is_missing", "age"), ("age", "age_is_missing"), ("age_is_missing", "age_is_missing_2", "age")],
)
def test_a_column_that_is_named_like_a_gap_keeps_its_name(tmp_path: Path, columns: tuple[str, ...]) -> None:
    values = {name: [i % 5 / 2 if i % 3 or name != "age" else None for i in range(ROWS)] for name in columns}
    frame = pl.DataFrame(values | {"y": [i % 2 for i in range(ROWS)]})
    pipeline = declared(written(frame, tmp_path))
    assert len(pipeline.feature_names) == len(columns) + 1
    assert columns[0] in pipeline.event.fields
    assert "age" in pipeline.event.fields


def test_a_declaration_that_does_not_hold_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {"pipeline.toml": '[pipeline]\nname = "other"\n', "event.avsc": "{}"}
    monkeypatch.setattr("services.cli.from_csv.files_from", lambda _wish: broken)
    path = odd(tmp_path / "odd.csv")
    arguments = ["init", "some", "--from", str(path), "--label", "y", "--root", str(tmp_path / "declared")]
    for _ in range(2):
        done = CliRunner().invoke(build(), arguments)
        assert isinstance(done.exception, DeclarationError)
    assert not (tmp_path / "declared").exists()


def test_the_command_writes_it_and_says_what_to_type_next(tmp_path: Path) -> None:
    path = odd(tmp_path / "odd.csv")
    arguments = ["init", "some", "--from", str(path), "--label", "y", "--root", str(tmp_path / "declared")]
    done = CliRunner().invoke(build(), arguments)
    assert done.exit_code == 0, done.output
    assert f"millrace replay {path} --pipeline some --lockstep" in done.output
    again = CliRunner().invoke(build(), arguments)
    assert (again.exit_code, "is there already" in again.output) == (2, True)


def test_nothing_is_written_where_the_file_cannot_serve(tmp_path: Path) -> None:
    root = tmp_path / "declared"
    done = CliRunner().invoke(
        build(), ["init", "some", "--from", str(tmp_path / "no.csv"), "--label", "y", "--root", str(root)]
    )
    assert done.exit_code != 0
    assert not (root / "some").exists()
