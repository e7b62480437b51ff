"""Rows of a file to the script of a replay: what is sent, in which order, at which order time. Pure.

Events stand at their time, labels `labels_after_ms` later; at one time labels come first, then the order
column decides. The order time of each record is its time, but at least a millisecond after the one before:
the merge by order time then has no ties between partitions.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from shared.codec.batch import Batch, Column, Ints, Strings
from shared.codec.hashing import Partitions, partition_of
from shared.contracts.fields import Field
from shared.contracts.pipeline import Label, Pipeline, Source, class_text
from shared.contracts.tables import Cell
from shared.errors import Refused
from shared.runtime.merge import EVENT, LABEL

_MS = {"s": 1_000, "ms": 1}
_DTYPES: Mapping[str, type[pl.DataType]] = {
    "int": pl.Int64,
    "long": pl.Int64,
    "float": pl.Float64,
    "double": pl.Float64,
    "boolean": pl.Boolean,
    "string": pl.String,
}


MISSING = ("", "?", "-", "na", "n/a", "nan", "null", "none", "#n/a")
"""What people write for a number that is not there, whatever the case; it reads as null where null is allowed."""
TRUTHS = ("true", "false")
"""Texts that are truth values, whatever the case."""


@dataclass(frozen=True, slots=True)
class Script:
    """A replay: record k is row `row[k]` of `events` or `labels` (by `kind[k]`), at order time `order[k]`.

    `order` is in milliseconds UTC and strictly increasing. `keys` and `partitions` are by row, the same for
    an event and its label.
    """

    events: Batch
    labels: Batch | None
    keys: Strings
    partitions: Partitions
    kind: npt.NDArray[np.int8]
    row: Ints
    order: Ints

    def __len__(self) -> int:
        return int(self.order.size)


def cut(script: Script, begin: int, end: int) -> Script:
    """Records `begin` to `end` of a script, at their order times."""
    kept = slice(begin, end)
    return replace(script, kind=script.kind[kept], row=script.row[kept], order=script.order[kept])


def known_by(script: Script, now_ms: int) -> Script:
    """The script without the labels that come later than `now_ms`: nobody can know their outcome yet."""
    kept = (script.kind == EVENT) | (script.order <= now_ms)
    return replace(script, kind=script.kind[kept], row=script.row[kept], order=script.order[kept])


def read_rows(path: Path, pipeline: Pipeline, start: int = 0, limit: int | None = None) -> pl.DataFrame:
    """The columns that the pipeline's [source] names, of `limit` rows from row `start` on (all by default).

    Raises:
        Refused: the file is missing, of another kind, or lacks a column.
    """
    source = _source(pipeline)
    if not path.is_file():
        raise Refused(f"there is no file {path}; give a .csv, .csv.gz or .parquet file")
    wanted = _dtypes(pipeline, source)
    try:
        if path.suffix == ".parquet":
            return pl.scan_parquet(path).select(*wanted).slice(start, limit).collect()
        return pl.read_csv(
            path,
            columns=list(wanted),
            schema_overrides={name: dtype for name, dtype in wanted.items() if dtype is not None},
            skip_rows_after_header=start,
            n_rows=limit,
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        hint = "give a .csv, .csv.gz or .parquet file with the columns that [source] names"
        raise Refused(f"{path} cannot be read: {str(error).splitlines()[0]}; {hint}") from error


def write_script(
    frame: pl.DataFrame, pipeline: Pipeline, labels_after_ms: int | None, first_row: int = 0
) -> Script:
    """The script for the rows of `frame`; no labels where `labels_after_ms` is None or a row has none.

    `first_row` is the number of the frame's first row, for fields and times that count rows.
    """
    source = _source(pipeline)
    if frame.is_empty():
        raise Refused("there are no rows to replay; lower --start or give another file")
    time = _times(frame, source, first_row)
    if int(time.min()) <= 0:
        raise Refused(
            f"row {int(np.argmin(time))} stands before 1970; check [source] time, time_unit and epoch"
        )
    events = _batch(frame, pipeline.event.fields, source.event, pipeline.event.time, time, first_row)
    keys = events[pipeline.event.key].strings
    labels, labelled = None, np.empty(0, np.int64)
    if pipeline.label is not None and labels_after_ms is not None and source.label:
        label = pipeline.label
        labels = _batch(frame, label.fields, source.label, label.time, time, first_row, label)
        labelled = np.flatnonzero(labels[label.field].mask())
    rank = np.arange(frame.height) if source.order is None else _ranks(frame[source.order])
    kind = np.concatenate([np.full(frame.height, EVENT, np.int8), np.full(labelled.size, LABEL, np.int8)])
    row = np.concatenate([np.arange(frame.height), labelled])
    at = np.concatenate([time, time[labelled] + (labels_after_ms or 0)])
    sequence = np.lexsort((rank[row], kind, at))
    kind, row, at = kind[sequence], row[sequence], at[sequence]
    return Script(events, labels, keys, partition_of(keys, pipeline.partitions), kind, row, spread(at))


def labels_after_ms(pipeline: Pipeline) -> int | None:
    """How long after its event a label is sent unless somebody says otherwise; None without labels."""
    if pipeline.label is None:
        return None
    said = None if pipeline.source is None else pipeline.source.labels_after_ms
    return pipeline.label.horizon_ms if said is None else said


def spread(time: Ints) -> Ints:
    """Strictly increasing times: each at least a millisecond after the one before.

    >>> spread(np.array([10, 10, 10, 11, 20])).tolist()
    [10, 11, 12, 13, 20]
    """
    steps = np.arange(time.size, dtype=np.int64)
    apart: Ints = np.maximum.accumulate(time - steps) + steps
    return apart


def _source(pipeline: Pipeline) -> Source:
    if pipeline.source is None:
        raise Refused(
            f"pipeline {pipeline.name} does not say how files are read; add [source] to pipeline.toml"
        )
    return pipeline.source


def _avro_name(field: Field) -> str:
    avro: Any = field.avro
    return str(avro["type"] if isinstance(avro, dict) else avro)


def _dtypes(pipeline: Pipeline, source: Source) -> dict[str, type[pl.DataType] | None]:
    """The columns to read and what each is; texts stay texts, so that an id such as 007 keeps its zeros."""
    wanted: dict[str, type[pl.DataType] | None] = {}
    tables = [(pipeline.event.fields, source.event, "")]
    if pipeline.label is not None:
        tables.append((pipeline.label.fields, source.label, pipeline.label.field))
    for fields, cells, outcome in tables:
        for name, cell in cells.items():
            if cell.kind == "column" and (cell.text not in wanted or wanted[cell.text] is pl.String):
                # A class is a spelling: 1.00 is not 1.0.
                wanted[cell.text] = pl.String if name == outcome else _read_as(fields[name])
    for extra in (source.time, source.order):
        if extra is not None:
            # One column can be an id and the order: it is read as it stands and made a text afterwards.
            wanted[extra] = None
    return wanted


def _read_as(field: Field) -> type[pl.DataType]:
    """A number that may be missing is read as a text: what stands for nothing differs from file to file."""
    if field.kind == "number" and field.nullable:
        return pl.String
    return _DTYPES.get(_avro_name(field), pl.String)


def _times(frame: pl.DataFrame, source: Source, first_row: int) -> Ints:
    """Each row's time in milliseconds UTC."""
    if source.time is None:
        step = source.interval_ms or 1
        return source.epoch_ms + (first_row + np.arange(frame.height, dtype=np.int64)) * step
    column = frame[source.time]
    if column.null_count():
        raise Refused(f"column {source.time} is empty in {column.null_count()} rows; every row needs a time")
    if source.time_unit == "iso":
        moments = column if column.dtype == pl.Datetime else column.str.to_datetime(time_zone="UTC")
        return moments.dt.epoch("ms").to_numpy().astype(np.int64)
    numbers = column.to_numpy()
    if numbers.dtype.kind not in "iuf":
        raise Refused(f'column {source.time} is not a number; set time_unit = "iso" or give numbers')
    scaled: Ints = np.rint(numbers * _MS[source.time_unit]).astype(np.int64)
    return source.epoch_ms + scaled


def _ranks(column: pl.Series) -> Ints:
    """The position of each row in the order of `column`; equal ones keep the file's order."""
    return column.rank("ordinal").to_numpy().astype(np.int64)


def _batch(
    frame: pl.DataFrame,
    fields: Mapping[str, Field],
    cells: Mapping[str, Cell],
    time_field: str,
    time: Ints,
    first_row: int,
    label: Label | None = None,
) -> Batch:
    """The records of one schema; `label` where they are labels, whose outcome is read as a class."""
    columns: dict[str, Column] = {}
    for name, field in fields.items():
        if name == time_field:
            columns[name] = Column(time)
        elif name in cells:
            series = _series(frame, cells[name], first_row)
            if label is not None and name == label.field:
                series = _outcomes(series, label)
            columns[name] = _column(series, field)
        elif field.nullable:
            nothing = pl.Series(name, [None] * frame.height, dtype=pl.String)
            columns[name] = _column(nothing, field)
        else:
            raise Refused(f"[source] does not say where field {name} comes from; add it to pipeline.toml")
    return Batch(columns, frame.height)


def _series(frame: pl.DataFrame, cell: Cell, first_row: int) -> pl.Series:
    if cell.kind == "column":
        return frame[cell.text]
    if cell.kind == "constant":
        return pl.repeat(cell.text, frame.height, dtype=pl.String, eager=True)
    return pl.int_range(first_row, first_row + frame.height, eager=True)


def _column(series: pl.Series, field: Field) -> Column:
    """One field's values, cast to what its schema wants."""
    dtype = _DTYPES.get(_avro_name(field))
    if dtype is None:
        raise Refused(
            f"field {field.name} is {_avro_name(field)}; files give texts, numbers and booleans only"
        )
    try:
        plain = _without_missing(series, field)
        cast = _truths(plain, field) if dtype is pl.Boolean else plain.cast(dtype)
    except pl.exceptions.PolarsError as error:
        raise Refused(f"{field.name}: {str(error).splitlines()[0]}; check the column in [source]") from error
    if field.nullable and cast.dtype.is_float():
        cast = cast.fill_nan(None)
    valid = None
    if cast.null_count() or field.nullable:
        valid = cast.is_not_null().to_numpy()
        cast = cast.fill_null("" if dtype is pl.String else False if dtype is pl.Boolean else 0)
    if dtype is not pl.String:
        return Column(cast.to_numpy(), valid)
    lengths = cast.str.len_bytes().to_numpy().astype(np.int64)
    joined = str(cast.str.join("").item()).encode()
    return Column(Strings.packed(np.frombuffer(joined, np.uint8), lengths), valid)


def _outcomes(series: pl.Series, label: Label) -> pl.Series:
    """What came of each row, null where that is not known; numbers and truth values stand as they are."""
    if series.dtype != pl.String and label.fields[label.field].kind != "string":
        return series.fill_nan(None) if series.dtype.is_float() else series
    return outcome_texts(series, [class_text(each) for each in label.classes])


def _truths(series: pl.Series, field: Field) -> pl.Series:
    """Truth values; of texts `true` and `false` are some, whatever the case."""
    if series.dtype != pl.String:
        return series.cast(pl.Boolean)
    lower = series.str.to_lowercase()
    strange = series.filter(~lower.is_in(TRUTHS))
    if strange.len():
        raise Refused(f"{field.name}: {strange[0]!r} is neither true nor false; check the column in [source]")
    return lower == "true"


def _without_missing(series: pl.Series, field: Field) -> pl.Series:
    """Texts of numbers with null for what stands for nothing."""
    if series.dtype != pl.String or field.kind != "number":
        return series
    return blank_missing(series)


def blank_missing(texts: pl.Series) -> pl.Series:
    """The texts without blanks around them, null for those that stand for nothing.

    >>> blank_missing(pl.Series(["1.5 ", "?", "NaN"])).to_list()
    ['1.5', None, None]
    """
    plain = texts.str.strip_chars()
    return plain.set(plain.str.to_lowercase().is_in(MISSING), None)


def outcome_texts(series: pl.Series, classes: Collection[str] = ()) -> pl.Series:
    """A label's column as texts: as they stand but for blanks around them, null for what stands for nothing.

    What is one of `classes` is that class, whatever else it could mean.

    >>> outcome_texts(pl.Series(["1.00", " 0.00", "NA"])).to_list()
    ['1.00', '0.00', None]
    >>> outcome_texts(pl.Series([" ?", "-"]), ["?"]).to_list()
    ['?', None]
    """
    texts = series.cast(pl.String)
    plain = texts.str.strip_chars()
    as_declared = pl.when(texts.is_in(classes)).then(texts).when(plain.is_in(classes)).then(plain)
    return pl.select(as_declared.otherwise(blank_missing(texts))).to_series()
