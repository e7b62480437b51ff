"""What the columns of a file are to a pipeline: numbers, truth values, a label, a time; or of no use, and why."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from keyword import iskeyword
from pathlib import Path
from typing import Literal
from unicodedata import combining, normalize

import numpy as np
import polars as pl

from services.cli.script import TRUTHS, blank_missing, outcome_texts
from shared.contracts.basics import ClassName
from shared.errors import Refused

MOST_CLASSES = 12
EPOCH = "2020-01-01T00:00:00Z"
"""Where times begin that count from no known moment, and numbered rows."""
_FAR_MS, _FAR_S = 1e11, 1e8
"""Counts of milliseconds and of seconds since 1970 lie above these since 1973; smaller ones begin elsewhere."""
_TOO_FINE = 1e14
_YES = {"yes", "y", "true", "t", "positive", "pos"}


@dataclass(frozen=True, slots=True)
class Feature:
    """A column that a model can learn from; `field` is its name in the event.

    `absent` names the feature that says that a row lacks it, empty where none does; `nullable` also where its
    values need cleaning. `usual` stands for a missing value.
    """

    column: str
    field: str
    kind: Literal["number", "boolean"]
    nullable: bool = False
    absent: str = ""
    usual: float = 0.0


@dataclass(frozen=True, slots=True)
class LabelColumn:
    """The column with the outcome: Avro type and classes as they will be read.

    Positive is the class that says yes, else the rarer one. `unknown` tells how many rows have no outcome and
    what stands there instead; empty where all have one.
    """

    column: str
    field: str
    avro: Literal["long", "boolean", "string"]
    classes: tuple[ClassName, ...]
    positive: ClassName
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class TimeColumn:
    """The column with the time, in [source]'s terms; `moments` are its rows in milliseconds since 1970."""

    column: str
    unit: Literal["s", "ms", "iso"]
    epoch: str | None
    moments: pl.Series = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Left:
    """A column of no use, and why."""

    column: str
    reason: str


def read_table(path: Path, label: str) -> pl.DataFrame:
    """The whole file, each column as what all its values are, the label's as the texts that a CSV file holds.

    Raises:
        Refused: it is missing, of another kind, or empty.
    """
    if not path.is_file():
        raise Refused(f"there is no file {path}; give a .csv, .csv.gz or .parquet file")
    try:
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path)
        else:
            frame = pl.read_csv(path, infer_schema_length=None, schema_overrides={label: pl.String})
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Refused(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if frame.height < 2:
        raise Refused(f"{path} has {frame.height} rows; there is nothing to learn from")
    return frame


def avro_name(column: str, taken: Collection[str]) -> str:
    """A field name like the column's that expressions can use and that is not `taken`.

    >>> [avro_name(name, {"x_y"}) for name in ("x y", "2nd", "class", "Größe", "")]
    ['x_y_2', 'c_2nd', 'class_', 'Gro_e', 'c_']
    """
    bare = "".join(each for each in normalize("NFKD", column) if not combining(each))
    name = re.sub(r"[^A-Za-z0-9_]", "_", bare)
    if not name or name[0].isdigit():
        name = f"c_{name}"
    if iskeyword(name) or name == "features":
        name += "_"
    plain, number = name, 1
    while name in taken:
        number += 1
        name = f"{plain}_{number}"
    return name


def label_column(frame: pl.DataFrame, column: str, field: str) -> LabelColumn:
    """The label; Refused where the column is not there or does not hold 2 to 12 classes."""
    cells = _column(frame, column, "--label").cast(pl.String).rename("class")
    # A dash stands for nothing, unless it is the other of two signs.
    texts = outcome_texts(cells, ["-"] if (cells.str.strip_chars() == "+").any() else []).rename("class")
    avro, values = _outcomes(texts.drop_nulls())
    counts = values.value_counts(name="rows").sort("class")
    classes = tuple(counts["class"].to_list())
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise Refused(
            f"--label {column}: {len(classes)} different values; a label has 2 to {MOST_CLASSES} classes"
        )
    rare = classes[int(counts["rows"].arg_min() or 0)]
    positive = rare if avro == "string" or len(classes) > 2 else classes[-1]
    yes = [each for each in classes if str(each).lower() in _YES]
    unknown = _unknown(cells.filter(texts.is_null()), cells.len())
    return LabelColumn(column, field, avro, classes, yes[0] if len(yes) == 1 else positive, unknown)


def _outcomes(texts: pl.Series) -> tuple[Literal["long", "boolean", "string"], pl.Series]:
    """What all the texts are: whole numbers, truth values, or texts; and they as that."""
    numbers = texts.cast(pl.Int64, strict=False)
    if not numbers.null_count():
        return "long", numbers
    lower = texts.str.to_lowercase()
    if bool(lower.is_in(TRUTHS).all()):
        return "boolean", lower == "true"
    return "string", texts


def _unknown(cells: pl.Series, rows: int) -> str:
    """How many of `rows` have no outcome, and what stands in those cells.

    >>> _unknown(pl.Series([None, " ", "NA", "NA"]), 9)
    '4 of 9 rows: empty, NA'
    """
    if cells.is_empty():
        return ""
    spelled = cells.fill_null("").str.strip_chars().unique().sort()
    return f"{cells.len()} of {rows} rows: {', '.join(each or 'empty' for each in spelled)}"


def time_column(frame: pl.DataFrame, column: str) -> TimeColumn:
    """The time; Refused where the column is not there, has gaps, or is neither a count nor ISO texts."""
    series = _column(frame, column, "--time")
    if series.null_count():
        raise Refused(f"--time {column}: empty in {series.null_count()} rows; every row needs a time")
    if series.dtype.is_numeric():
        return _counted(series.cast(pl.Float64), column)
    try:
        moments = series if series.dtype == pl.Datetime else series.str.to_datetime(time_zone="UTC")
    except pl.exceptions.PolarsError as error:
        raise Refused(
            f"--time {column}: {series[0]!r} is not a time; write 2024-01-31T10:00:00Z, or leave out --time:"
            " rows are numbered then"
        ) from error
    return TimeColumn(column, "iso", None, moments.dt.epoch("ms").cast(pl.Float64))


def time_of_rows(moments: pl.Series, rows: int) -> int:
    """Milliseconds until so many more rows have come, usually; a second a row where all are of one instant.

    Never less than two rows of different times are apart.

    >>> time_of_rows(pl.Series([0, 0, 60, 60, 120, 120]), 4), time_of_rows(pl.Series([0, 0, 0, 60]), 2)
    (120, 60)
    """
    times = moments.sort().to_numpy()
    apart = np.diff(times)
    if not (apart > 0).any():
        return rows * 1_000
    span = min(rows, times.size - 1)
    usual = float(np.median(times[span:] - times[:-span])) * rows / span
    return max(1, round(max(usual, float(apart[apart > 0].min()))))


def key_column(frame: pl.DataFrame, column: str) -> str:
    """The key's column; Refused where it is not there or a row lacks it."""
    nulls = _column(frame, column, "--key").null_count()
    if nulls:
        raise Refused(f"--key {column}: empty in {nulls} rows; every row needs a key, or leave out --key")
    return column


def features_of(
    frame: pl.DataFrame, spoken_for: Collection[str], taken: Collection[str]
) -> tuple[list[Feature], list[Left]]:
    """What there is to learn from, without the columns `spoken_for`; field names avoid those `taken`."""
    names = set(taken)
    features: list[Feature] = []
    left: list[Left] = []
    for column in frame.columns:
        if column in spoken_for:
            continue
        field = avro_name(column, names)
        found = _judge(frame[column], column, field, avro_name(f"{field}_is_missing", names))
        if isinstance(found, Left):
            left.append(found)
        else:
            features.append(found)
            names |= {found.field, found.absent}
    return features, left


def _column(frame: pl.DataFrame, column: str, option: str) -> pl.Series:
    if column not in frame.columns:
        raise Refused(f"{option} {column}: no such column; write one of {', '.join(frame.columns[:20])}")
    if column in ("", "#") or column.startswith("="):
        raise Refused(f"{option} {column}: [source] cannot name such a column; rename it in the file")
    return frame[column]


def _judge(series: pl.Series, column: str, field: str, absent: str) -> Feature | Left:
    if column in ("", "#") or column.startswith("="):
        return Left(column, "[source] cannot name it")
    values, cleaned = _numbers(series)
    if values is None:
        return Left(column, "not a number")
    present = values.drop_nulls()
    if present.n_unique() < 2:
        return Left(column, "the same in every row")
    if _counts_rows(series):
        return Left(column, "counts the rows")
    kind: Literal["number", "boolean"] = "boolean" if values.dtype == pl.Boolean else "number"
    finite = present.cast(pl.Float64).filter(present.cast(pl.Float64).is_finite())
    usual = float(finite.head(1_000).median() or 0.0)  # type: ignore[arg-type]
    missing = present.len() < values.len()
    return Feature(column, field, kind, cleaned or missing, absent if missing else "", usual)


def _numbers(series: pl.Series) -> tuple[pl.Series | None, bool]:
    """The values as numbers or truth values with nulls, and whether they were texts; None for other things."""
    if series.dtype == pl.Boolean or series.dtype.is_integer():
        return series, False
    if series.dtype.is_float():
        return series.fill_nan(None), False
    if series.dtype != pl.String:
        return None, False
    plain = blank_missing(series)
    numbers = plain.cast(pl.Float64, strict=False)
    if numbers.null_count() > plain.null_count():
        return None, True
    return numbers.fill_nan(None), True


def _counts_rows(series: pl.Series) -> bool:
    """Whether it goes up by one from row to row: a model would learn the date from it."""
    if not series.dtype.is_integer() or series.null_count() or series.len() < 3:
        return False
    steps = series.cast(pl.Int64).diff().drop_nulls()
    return bool((steps == 1).all())


def _counted(numbers: pl.Series, column: str) -> TimeColumn:
    if not bool(numbers.is_finite().all()):
        raise Refused(f"--time {column}: not a number in some rows; every row needs a time")
    low, high = float(numbers.min() or 0.0), float(numbers.max() or 0.0)  # type: ignore[arg-type]
    if high >= _TOO_FINE:
        raise Refused(f"--time {column}: {high:.0f} is finer than milliseconds; give seconds or milliseconds")
    if low >= _FAR_MS:
        return TimeColumn(column, "ms", None, numbers)
    if low >= _FAR_S:
        return TimeColumn(column, "s", None, numbers * 1_000)
    return TimeColumn(column, "s", EPOCH, (numbers + datetime.fromisoformat(EPOCH).timestamp()) * 1_000)
