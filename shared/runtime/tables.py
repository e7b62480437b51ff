"""What a unit of an inner topic reads and writes: one generated schema a topic, one program each."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.codec.batch import Batch, Column, Strings
from shared.codec.frame import frame_prefix, split_frames
from shared.codec.layout import TEXTS
from shared.codec.program import Program, compile_program
from shared.errors import Fatal
from shared.runtime.polled import Polled
from shared.runtime.unit import Out

DTYPES = {"double": np.dtype(np.float64), "boolean": np.dtype(np.bool_), "presence": np.dtype(np.bool_)}


@dataclass(frozen=True, slots=True)
class Table:
    """An inner topic as seen by one service: its name on the broker, its schema's id and program."""

    topic: str
    schema_id: int
    program: Program

    @staticmethod
    def of(topic: str, schema_id: int, schema: dict[str, Any]) -> "Table":
        """The table of `topic` with the registered `schema`."""
        return Table(topic, schema_id, compile_program(schema))

    def read(self, polled: Polled) -> Batch:
        """Decode records that Millrace itself wrote; adds `input_partition` and `input_offset`.

        Raises:
            Fatal: a record is not of this schema: somebody else writes to an inner topic.
        """
        ids, payload, status = split_frames(polled.values)
        decoded = self.program.decode(payload)
        wrong = (status != 0) | (ids != self.schema_id) | (decoded.status != 0) | polled.value_null
        if wrong.any():
            at = int(polled.offsets[int(np.argmax(wrong))])
            raise Fatal(
                f"{polled.topic}/{polled.partition} offset {at} is not of schema {self.schema_id}: "
                "only Millrace writes to this topic; see who else does"
            )
        return decoded.batch.having(
            input_partition=np.full(len(polled), polled.partition, np.int64),
            input_offset=polled.offsets,
        )

    def write(self, batch: Batch) -> Strings:
        """Framed values, one a row."""
        return self.program.encode(batch, frame_prefix(self.schema_id))


class ProgressWriter:
    """Writes the records that say where a unit has come to: `copies` alike, one a partition."""

    def __init__(self, table: Table, unit: int, copies: int) -> None:
        self._table, self._copies = table, copies
        set_ = np.ones(copies, np.bool_)
        self._template = empty_rows(table.program, copies).having(
            unit=np.full(copies, unit, np.int64),
            source_partition=np.full(copies, unit, np.int64),
            source_offset=np.full(copies, -1, np.int64),
            progress=set_,
        )
        self._set = set_

    def out(self, order_time: int, idle: bool, partitions: npt.NDArray[np.int32]) -> Out:
        """The unit has come to `order_time` (milliseconds), or is idle; one record a partition."""
        copies = self._copies
        said = self._template.having(
            order_time=np.full(copies, order_time, np.int64),
            **{"progress.idle": Column(np.full(copies, idle, np.bool_), self._set)},
        )
        return Out(self._table.topic, None, self._table.write(said), partitions)


def empty_rows(program: Program, rows: int) -> Batch:
    """Rows in which every optional part is absent and every number is zero."""
    absent = np.zeros(rows, np.bool_)
    columns: dict[str, Column] = {}
    for spec in program.columns:
        valid = absent if spec.valid >= 0 else None
        if spec.kind in TEXTS:
            columns[spec.name] = Column(Strings.repeated(b"", rows), valid)
        else:
            columns[spec.name] = Column(np.zeros(rows, DTYPES.get(spec.kind, np.dtype(np.int64))), valid)
    return Batch(columns, rows)
