"""Released rows to records of accepted.v1 and to dead letters, both in merged order."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.ingest.core.fold import Passed
from services.ingest.core.reasons import OK, Reasons
from services.ingest.core.rows import join
from shared.codec.batch import Column, Ints, Mask, Strings
from shared.runtime.tables import Table, empty_rows
from shared.runtime.unit import DeadLetter, Out

_NAMES = ("label", "event")


@dataclass(frozen=True, slots=True)
class Placed:
    """One chunk's rows in the merged order: `at` counts released rows, `order` and `late` are as merged."""

    kind: int
    passed: Passed
    at: Ints
    order: Ints
    late: Mask


def accepted(table: Table, unit: int, placed: list[Placed]) -> list[Out]:
    """The new rows of all chunks as one output to the unit's own partition, keyed as they came."""
    keys, values, ranks = [], [], []
    for part in placed:
        rows = _new_rows(part)
        if rows.size:
            keys.append(part.passed.chunk.polled.keys.take(rows))
            values.append(_encode(table, unit, part, rows))
            ranks.append(part.at[rows])
    if not ranks:
        return []
    if len(ranks) == 1:
        return [_out(table.topic, unit, keys[0], values[0])]
    order = np.argsort(np.concatenate(ranks), kind="stable")
    return [_out(table.topic, unit, join(keys).take(order), join(values).take(order))]


def _out(topic: str, unit: int, keys: Strings, values: Strings) -> Out:
    return Out(topic, keys, values, np.full(len(values), unit, np.int32))


def _new_rows(part: Placed) -> npt.NDArray[np.intp]:
    good = np.flatnonzero(part.passed.chunk.codes == OK)
    return good if part.passed.new.all() else good[part.passed.new]


def _encode(table: Table, unit: int, part: Placed, rows: npt.NDArray[np.intp]) -> Strings:
    """Values of one topic's new rows: the envelope around the decoded record, framed."""
    record = part.passed.chunk.good.record
    if not part.passed.new.all():
        record = record.take(part.passed.new)
    name = _NAMES[part.kind]
    count = rows.size
    columns: dict[str, npt.NDArray[np.generic] | Strings | Column] = {
        f"{name}.{inner}": column for inner, column in record.columns.items()
    }
    columns[name] = np.ones(count, np.bool_)
    batch = empty_rows(table.program, count).having(
        order_time=part.order[rows],
        late=part.late[rows],
        unit=np.full(count, unit, np.int64),
        source_partition=np.full(count, unit, np.int64),
        source_offset=part.passed.chunk.polled.offsets[rows],
        **columns,
    )
    return table.write(batch)


def dead_letters(reasons: Reasons, part: Placed) -> list[tuple[int, DeadLetter]]:
    """Every row of one chunk that was turned away, with its place in the merged order."""
    polled = part.passed.chunk.polled
    codes = part.passed.codes
    rows = np.flatnonzero(codes != OK)
    if not rows.size:
        return []
    keys, values = polled.keys.take(rows).to_list(), polled.values.take(rows).to_list()
    letters = []
    for at, row in enumerate(rows.tolist()):
        code = int(codes[row])
        letter = DeadLetter(
            reason=reasons.name(code),
            message=reasons.message(code),
            topic=polled.topic,
            partition=polled.partition,
            offset=int(polled.offsets[row]),
            timestamp=int(polled.timestamps[row]),
            key=None if polled.key_null[row] else keys[at],
            value=None if polled.value_null[row] else values[at],
            headers=None if polled.headers is None else polled.headers[row],
        )
        letters.append((int(part.at[row]), letter))
    return letters
