"""Records of labeled.v1 and profiles.v1 in the core's form."""

from collections.abc import Sequence

import numpy as np

from services.drift.core.records import LabeledRows, ProfileColumn, ProfileRow
from shared.codec.batch import Batch, Column, Floats, Mask
from shared.control.records import Record
from shared.errors import Fatal
from shared.profiling import FEATURES


def labeled_rows(batch: Batch, features: Sequence[str], classes: int) -> LabeledRows:
    """The rows of labeled.v1 whose answer went out: those of shadows are left out.

    Raises:
        Fatal: a row has another number of probabilities than the pipeline has classes.
    """
    roles = batch["role"].strings.to_list()
    rows = batch.take(np.array([role != b"shadow" for role in roles], np.bool_))
    matrix = np.empty((rows.rows, len(features)), np.float64)
    for at, name in enumerate(features):
        matrix[:, at] = rows[f"features.{name}"].array
    return LabeledRows(
        sequence=rows["sequence"].array,
        order_time=rows["order_time"].array,
        label_class=rows["label_class"].array.astype(np.int64),
        predicted_class=rows["predicted_class"].array.astype(np.int64),
        score=rows["score"].array,
        features=matrix,
        model_version=rows["model_version"].array,
        probabilities=probabilities(rows["probabilities"], classes) if classes > 2 else None,
        kind=rows["kind"].array.astype(np.int64),
        champion=champions(rows),
    )


def champions(rows: Batch) -> Mask:
    """Which rows the champion answered."""
    return np.array([role == b"champion" for role in rows["role"].strings.to_list()], np.bool_)


def probabilities(column: Column, classes: int) -> Floats:
    """An array of doubles a row, as Avro writes it in one block, as float64 [rows, classes]."""
    texts = column.strings
    size = 8 * classes + 2
    if (texts.lengths != size).any():
        raise Fatal(f"a labelled row does not have {classes} probabilities; who else writes labeled.v1?")
    data = texts.compact().data.reshape(len(texts), size)
    if (data[:, 0] != 2 * classes).any():
        raise Fatal("the probabilities of a labelled row are not one block of doubles")
    return np.ascontiguousarray(data[:, 1:-1]).view("<f8")


def profile_row(record: Record) -> ProfileRow:
    """A record of profiles.v1, as it is read or as it is written, where fields with defaults may be left out."""
    columns = tuple(
        ProfileColumn(
            np.array(column["buckets"], np.int64),
            np.array(column["counts"], np.int64),
            column["zeros"],
            column["missing"],
            column["minimum"],
            column["maximum"],
            column.get("total", 0.0),
            column.get("squares", 0.0),
        )
        for column in record["columns"]
    )
    return ProfileRow(
        record["unit"],
        record["number"],
        record["rows"],
        record["first_order_time"],
        record["order_time"],
        tuple(record["names"]),
        columns,
        record.get("of", FEATURES),
        record.get("model_version", 0),
    )
