"""The label of a file, however it is spelled: what a replay sends is a class that was declared for the file."""

import csv
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from services.cli.from_csv import Wish, files_from
from services.cli.script import MISSING, read_rows, write_script
from services.feedback.core.classes import ClassReader
from shared.contracts.pipeline import Label, Pipeline, parse_pipeline
from shared.errors import Refused

ROUNDS = 5

SPELLINGS: dict[str, tuple[list[str], tuple[object, ...] | None]] = {
    "whole numbers": (["0", "1"], (0, 1)),
    "numbers below zero": (["-1", "1", "-10"], (-10, -1, 1)),
    "decimals": (["0", "0.5", "1"], ("0", "0.5", "1")),
    "two places": (["1.00", "0.00"], ("0.00", "1.00")),
    "decimals below zero": (["-0.5", "0.5", ".5"], ("-0.5", ".5", "0.5")),
    "powers": (["1e3", "2e3"], ("1e3", "2e3")),
    "truth values": (["true", "false"], (False, True)),
    "truth values in capitals": (["True", "FALSE", "true"], (False, True)),
    "words": (["yes", "no"], ("no", "yes")),
    "words with blanks and quotes": (["all well", 'a "bad" one', "so, so"], None),
    "words with blanks around them": ([" <=50K", " >50K", ">50K"], ("<=50K", ">50K")),
    "numbers with gaps": (["0", "1", "NA"], (0, 1)),
    "numbers and empty cells": (["0", "", "1", "  "], (0, 1)),
    "decimals with gaps": (["0.0", "1.0", "nan", ""], ("0.0", "1.0")),
    "truth values with gaps": (["true", "?", "false", "null"], (False, True)),
    "words with gaps": (["lo", "N/A", "hi", "None"], ("hi", "lo")),
    "signs": (["+", "-", "NA"], ("+", "-")),
    "a number and gaps as dashes": (["1", "2", "-"], (1, 2)),
    "numbers and words": (["0", "1", "other"], ("0", "1", "other")),
    "twelve": ([str(i) for i in range(12)], tuple(range(12))),
    "twelve decimals": ([f"{i / 2}" for i in range(12)], None),
}


def written(cells: list[str], path: Path) -> Path:
    """Rows with these labels, as texts, in a CSV file or, as polars reads that, in a Parquet file."""
    plain = path.with_suffix(".csv")
    with plain.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["x", "y"])
        rows.writerows([i * i % 7 / 2, cell] for i, cell in enumerate(cells))
    if path.suffix == ".parquet":
        pl.read_csv(plain, infer_schema_length=None).write_parquet(path)
    return path


def declared(path: Path, label: str = "y") -> Pipeline:
    return parse_pipeline(files_from(Wish("some", path, label)), "some", "some")


def label_of(pipeline: Pipeline) -> Label:
    assert pipeline.label is not None
    return pipeline.label


def sent(path: Path, pipeline: Pipeline) -> list[int]:
    """The index among the declared classes of each label that a replay of the file sends, -1 for no class."""
    script = write_script(read_rows(path, pipeline), pipeline, 1_000)
    label = label_of(pipeline)
    assert script.labels is not None
    rows = script.row[script.kind == 0]
    found: list[int] = ClassReader(label).read(script.labels[label.field].take(rows)).tolist()
    return found


def meant(cell: str, cells: list[str]) -> bool:
    """Whether a cell says what came of its row."""
    text = cell.strip().lower()
    return text not in MISSING or (text == "-" and "+" in cells)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize(("spelled", "classes"), SPELLINGS.values(), ids=SPELLINGS.keys())
def test_every_outcome_that_is_sent_is_a_declared_class(
    spelled: list[str], classes: tuple[object, ...] | None, ending: str, tmp_path: Path
) -> None:
    cells = spelled * ROUNDS
    path = written(cells, tmp_path / f"rows{ending}")
    pipeline = declared(path)
    told = sent(path, pipeline)
    assert len(told) == sum(meant(cell, cells) for cell in cells), "a row with an outcome has a label"
    assert -1 not in told
    assert set(told) == set(range(len(label_of(pipeline).classes))), "each class that is declared comes"
    if ending == ".csv" and classes is not None:
        assert label_of(pipeline).classes == classes


def test_outcomes_are_told_apart_as_the_file_does(tmp_path: Path) -> None:
    cells = ["0"] * 5 + ["0.5"] * 3 + ["1"] * 2
    path = written(cells, tmp_path / "rows.csv")
    assert sorted(Counter(sent(path, declared(path))).values()) == [2, 3, 5]


def test_a_class_that_was_declared_by_hand_is_never_taken_for_nothing(tmp_path: Path) -> None:
    path = written(["n/a", "all", "?"] * ROUNDS, tmp_path / "rows.csv")
    texts = files_from(Wish("some", written(["some", "all"] * ROUNDS, tmp_path / "other.csv"), "y"))
    texts["pipeline.toml"] = (
        texts["pipeline.toml"].replace('"some"]', '"n/a"]').replace('positive = "some"', 'positive = "n/a"')
    )
    texts["pipeline.toml"] = texts["pipeline.toml"].replace('label = "some"', 'label = "n/a"')
    pipeline = parse_pipeline(texts, "some", "some")
    assert sorted(sent(path, pipeline)) == [0] * ROUNDS + [1] * ROUNDS


def test_a_label_column_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    pl.DataFrame({"x": [1.0, 2.0, 4.0], "rows": [0, 1, 1]}).write_csv(path)
    assert label_of(declared(path, "rows")).classes == (0, 1)


def test_what_was_taken_for_no_outcome_is_said(tmp_path: Path) -> None:
    path = written(["0", "1", "NA", "", "0", "na"] * ROUNDS, tmp_path / "rows.csv")
    text = files_from(Wish("some", path, "y"))["pipeline.toml"]
    assert "# Column y holds no outcome in 15 of 30 rows: empty, NA, na." in text.splitlines()


def test_a_truth_value_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    pipeline = declared(written(["true", "false"] * ROUNDS, tmp_path / "rows.csv"))
    path = written(["true", "perhaps"], tmp_path / "other.csv")
    with pytest.raises(Refused, match="'perhaps' is neither true nor false"):
        sent(path, pipeline)
