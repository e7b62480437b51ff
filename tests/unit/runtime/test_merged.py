"""A merged unit: cuts, restarts and replays of its input leave the same state and say the same."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from shared.codec.batch import Batch, Column, Strings
from shared.errors import Fatal
from shared.runtime.merged import Listeners, MergedUnit
from shared.runtime.polled import Polled
from shared.runtime.tables import ProgressWriter, Table, empty_rows
from shared.runtime.unit import Out

ENVELOPE = {
    "type": "record",
    "name": "Row",
    "fields": [
        {"name": "order_time", "type": "long"},
        {"name": "late", "type": "boolean"},
        {"name": "unit", "type": "int"},
        {"name": "source_partition", "type": "int"},
        {"name": "source_offset", "type": "long"},
        {
            "name": "event",
            "type": ["null", {"type": "record", "name": "E", "fields": [{"name": "x", "type": "double"}]}],
        },
        {
            "name": "progress",
            "type": [
                "null",
                {"type": "record", "name": "P", "fields": [{"name": "idle", "type": "boolean"}]},
            ],
        },
    ],
}
TABLE = Table.of("in", 7, ENVELOPE)


class RunningSum:
    """The smallest fold whose state depends on the order: s = s / 2 + x."""

    def __init__(self) -> None:
        self.state = 0.0

    def step(self, batch: Batch) -> Batch:
        out = []
        for x in batch["event.x"].array.tolist():
            self.state = self.state / 2 + x
            out.append(self.state)
        return batch.having(sum=np.array(out, np.float64))

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        return {"state": np.array([self.state])}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self.state = float(arrays["state"][0])

    def digest(self) -> str:
        return repr(self.state)


def write(batch: Batch) -> list[Out]:
    texts = [repr(v).encode() for v in batch["sum"].array.tolist()]
    return [Out("out", None, Strings.of(texts))]


def unit(sources: int = 2) -> MergedUnit:
    return MergedUnit(0, TABLE, RunningSum(), write, sources, Listeners(TABLE, 2))


def events(rows: list[tuple[int, int, float]]) -> list[bytes]:
    """(unit, order time, x) as values of the topic."""
    source, time, x = (np.array(column) for column in zip(*rows, strict=True))
    some = np.ones(len(rows), np.bool_)
    batch = empty_rows(TABLE.program, len(rows)).having(
        order_time=time.astype(np.int64),
        unit=source.astype(np.int64),
        source_partition=source.astype(np.int64),
        source_offset=np.arange(len(rows)),
        event=some,
        **{"event.x": Column(x.astype(np.float64), some)},
    )
    return TABLE.write(batch).to_list()


def progress(source: int, time: int, idle: bool = False) -> list[bytes]:
    return ProgressWriter(TABLE, source, 1).out(time, idle, np.zeros(1, np.int32)).values.to_list()


def polled(values: list[bytes], first: int = 0) -> Polled:
    none = np.zeros(len(values), np.bool_)
    offsets = np.arange(first, first + len(values))
    return Polled("in", 0, Strings.of([b""] * len(values)), none, Strings.of(values), none, offsets, offsets)


LOG = [
    *events([(0, 10, 1.0), (1, 5, 2.0), (0, 20, 3.0), (1, 15, 4.0)]),
    *progress(0, 30),
    *progress(1, 18),
    *events([(1, 25, 5.0)]),
    *progress(1, 40),
]


def said(merged: MergedUnit, start: int, end: int) -> list[bytes]:
    emission = merged.step([polled(LOG[start:end], start)], 0)
    assert emission.next_offsets == {"in": end}
    return [value for out in emission.outs for value in out.values.to_list()]


@pytest.mark.parametrize("cut", range(1, len(LOG)))
def test_cut_anywhere_restarted_there(cut: int) -> None:
    whole = unit()
    everything = said(whole, 0, len(LOG))
    before, after = unit(), unit()
    head = said(before, 0, cut)
    after.restore(before.snapshot())
    assert after.digest() == before.digest()
    assert head + said(after, cut, len(LOG)) == everything
    assert after.digest() == whole.digest()


def test_replay_is_a_silent_step() -> None:
    loud, silent = unit(), unit()
    said(loud, 0, len(LOG))
    silent.replay([polled(LOG)])
    assert silent.digest() == loud.digest()


def test_progress_is_told_to_every_partition_once() -> None:
    merged = unit()
    said(merged, 0, len(LOG))
    (out,) = merged.progress()
    assert out.partitions is not None
    assert out.partitions.tolist() == [0, 1]
    decoded = TABLE.read(polled(out.values.to_list()))
    assert decoded["order_time"].array.tolist() == [30, 30]
    assert merged.progress() == []


def test_idle_sources_hold_nobody_back() -> None:
    merged = unit()
    log = [*progress(1, 0, idle=True), *events([(0, 10, 1.0)]), *progress(0, 11)]
    emission = merged.step([polled(log)], 0)
    assert [out.values.to_list() for out in emission.outs] == [[b"1.0"]]


def test_foreign_record_ends_the_process() -> None:
    with pytest.raises(Fatal, match="in/0 offset 1 is not of schema 7"):
        unit().step([polled([LOG[0], b"\x00\x00\x00\x00\x08" + LOG[1][5:]])], 0)
