"""Profiles: every value in its bucket, the same however the log is cut, each told once."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from services.features.__main__ import build
from shared.codec.batch import Column, Floats, Strings
from shared.contracts.generated import accepted_schema
from shared.contracts.pipeline import Pipeline, find_pipeline, load_pipeline
from shared.contracts.policies import DriftPolicy, RetrainPolicy
from shared.control.records import Records
from shared.kafka.registry import register_pipeline
from shared.kafka.registry_memory import MemoryRegistry
from shared.profiling import Profiler
from shared.runtime.entry import Start
from shared.runtime.polled import Polled
from shared.runtime.tables import Table, empty_rows
from shared.runtime.unit import Unit
from shared.settings import PlatformSettings
from shared.topics import ACCEPTED, FEATURES, PROFILES

NO_CODE = np.full(3, np.nan)
TIMES = np.arange(10_000) * 10


def numbers(rows: int, seed: int = 5) -> Floats:
    """Values of many sizes, with zeros and some that are not there."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, 3)) * 10.0 ** rng.integers(-8, 8, (rows, 3))
    matrix[rng.random((rows, 3)) < 0.1] = 0.0
    matrix[rng.random((rows, 3)) < 0.05] = np.nan
    return matrix


def by_hand(value: float) -> int:
    """The bucket from the bytes of the double."""
    upper: int = struct.unpack(">H", struct.pack(">d", value)[:2])[0]
    size = (upper & 0x7FFF) >> 2
    return -size if value < 0 else size


@settings(deadline=None)
@given(st.lists(st.floats(), min_size=1, max_size=50))
def test_every_value_is_counted_in_its_place(values: list[float]) -> None:
    profiler = Profiler(0, ["x"], np.array([np.nan]), len(values))
    (profile,) = profiler.step(np.array(values)[:, None], TIMES)
    (column,) = profile["columns"]
    finite = [value for value in values if np.isfinite(value)]
    buckets = [by_hand(value) for value in finite]
    assert column["missing"] == len(values) - len(finite)
    assert column["zeros"] == buckets.count(0)
    want = {bucket: buckets.count(bucket) for bucket in sorted(set(buckets) - {0})}
    assert dict(zip(column["buckets"], column["counts"], strict=True)) == want
    assert column["buckets"] == sorted(want)
    assert (column["minimum"], column["maximum"]) == ((min(finite), max(finite)) if finite else (0.0, 0.0))


def test_buckets_ascend_with_the_values_four_an_octave() -> None:
    values = np.array([-8.0, -1.5, -1e-300, 1e-300, 1.0, 1.2, 1.25, 1.5, 1.75, 2.0, 1e300])
    codes = [by_hand(float(value)) for value in values]
    assert codes == sorted(codes)
    assert by_hand(2.0) - by_hand(1.0) == 4
    assert by_hand(1.2) == by_hand(1.0)
    assert by_hand(1.25) == by_hand(1.0) + 1


def test_the_declared_code_of_a_missing_value_is_missing() -> None:
    (profile,) = Profiler(0, ["x"], np.array([-1.0]), 4).step(np.array([[-1.0], [2.0], [-1.0], [3.0]]), TIMES)
    (column,) = profile["columns"]
    assert (column["missing"], column["minimum"], sum(column["counts"])) == (2, 2.0, 2)


@pytest.mark.parametrize("size", [1, 7, 99, 100, 101, 350])
def test_cut_and_restarted_anywhere(size: int) -> None:
    matrix, names = numbers(1_234), ["a", "b", "c"]
    whole = Profiler(3, names, NO_CODE, 100)
    want = whole.step(matrix, TIMES)
    assert [profile["number"] for profile in want] == list(range(12))
    assert [(p["first_order_time"], p["order_time"]) for p in want[:2]] == [(0, 990), (1_000, 1_990)]
    got: list[dict[str, Any]] = []
    profiler = Profiler(3, names, NO_CODE, 100)
    for start in range(0, len(matrix), size):
        got += profiler.step(matrix[start : start + size], TIMES[start : start + size])
        saved = profiler.snapshot()
        profiler = Profiler(3, names, NO_CODE, 100)
        profiler.restore(saved)
    assert got == want
    for name, array in whole.snapshot().items():
        assert profiler.snapshot()[name].tobytes() == array.tobytes()


def test_a_profile_under_way_is_dropped_where_fewer_rows_are_declared() -> None:
    old = Profiler(0, ["a", "b", "c"], NO_CODE, 100)
    old.step(numbers(290), TIMES)
    new = Profiler(0, ["a", "b", "c"], NO_CODE, 50)
    new.restore(old.snapshot())
    assert [profile["number"] for profile in new.step(numbers(120), TIMES)] == [2, 3]


def learning(every: int = 100) -> Pipeline:
    """Elec2 with the loop declared."""
    pipeline = load_pipeline(find_pipeline("elec2"))
    policy = pipeline.policy.model_copy(
        update={
            "retrain": RetrainPolicy.model_validate({}),
            "drift": DriftPolicy.model_validate({"profile_rows": every}),
        }
    )
    return pipeline.model_copy(update={"policy": policy})


def started(pipeline: Pipeline) -> Start:
    ids = register_pipeline(MemoryRegistry(), pipeline)
    return Start(PlatformSettings(), pipeline, None, ids, CollectorRegistry())  # type: ignore[arg-type]


def unit_of(start: Start, number: int = 1) -> Unit:
    return build(start, start.pipeline.entities[-1].name, None).make_unit(number)


def accepted(start: Start, count: int) -> list[bytes]:
    """Values of accepted.v1 with events that differ."""
    pipeline = start.pipeline
    topic = ACCEPTED.of(pipeline.name)
    table = Table.of(topic, start.schema_ids[topic], accepted_schema(pipeline))
    rng = np.random.default_rng(11)
    some = np.ones(count, np.bool_)
    rows = empty_rows(table.program, count)
    columns = {}
    for spec in table.program.columns:
        if spec.name.startswith("event.") and spec.kind == "double":
            columns[spec.name] = Column(rng.normal(size=count), some)
        elif spec.name.startswith("event.") and spec.kind in ("int", "long"):
            columns[spec.name] = Column(np.arange(count) * 1_000, some)
        elif spec.name.startswith("event.") and spec.kind == "string":
            columns[spec.name] = Column(Strings.of([b"%d" % n for n in range(count)]), some)
    columns |= {"event": Column(some), "order_time": Column(np.arange(count) * 1_000)}
    return table.write(rows.having(**columns)).to_list()


def polled(topic: str, values: list[bytes], first: int = 0) -> Polled:
    none = np.zeros(len(values), np.bool_)
    offsets = np.arange(first, first + len(values))
    return Polled(topic, 1, Strings.of([b""] * len(values)), none, Strings.of(values), none, offsets, offsets)


class Driven:
    """A unit of the last stage, and the profiles that it told."""

    def __init__(self, start: Start) -> None:
        self.start, self.unit = start, unit_of(start)
        self.values = accepted(start, 450)
        self.records = Records.of(PROFILES, start.pipeline.name, start.schema_ids)

    def input(self, begin: int, end: int) -> Polled:
        return polled(ACCEPTED.of(self.start.pipeline.name), self.values[begin:end], begin)

    def tell(self, begin: int, end: int) -> list[dict[str, Any]]:
        emission = self.unit.step([self.input(begin, end)], 0)
        assert emission.outs[0].topic == FEATURES.of(self.start.pipeline.name)
        outs = [out for out in emission.outs if out.topic == self.records.topic]
        assert all(set(out.keys.to_list()) == {b"1"} for out in outs if out.keys is not None)
        return [self.records.decode(value) for out in outs for value in out.values.to_list()]


def test_the_last_stage_tells_profiles_with_its_vectors() -> None:
    driven = Driven(started(learning()))
    profiles = driven.tell(0, 150) + driven.tell(150, 160) + driven.tell(160, 450)
    assert [profile["number"] for profile in profiles] == [0, 1, 2, 3]
    assert {profile["rows"] for profile in profiles} == {100}
    for profile in profiles:
        assert profile["names"] == list(driven.start.pipeline.feature_names)
        for column in profile["columns"]:
            assert sum(column["counts"]) + column["zeros"] + column["missing"] == 100


def test_what_is_replayed_is_not_told_again() -> None:
    loud, silent = Driven(started(learning())), Driven(started(learning()))
    loud.tell(0, 210)
    silent.unit.replay([silent.input(0, 210)])
    assert silent.unit.digest() == loud.unit.digest()
    assert [profile["number"] for profile in silent.tell(210, 350)] == [2]


@pytest.mark.parametrize("cut", [1, 99, 100, 101, 333])
def test_a_restored_unit_goes_on_with_the_profile_under_way(cut: int) -> None:
    whole = Driven(started(learning()))
    want = whole.tell(0, 450)
    before, after = Driven(started(learning())), Driven(started(learning()))
    head = before.tell(0, cut)
    after.unit.restore(before.unit.snapshot())
    assert after.unit.digest() == before.unit.digest()
    assert head + after.tell(cut, 450) == want
    assert after.unit.digest() == whole.unit.digest()


def test_a_unit_from_before_the_loop_was_declared_goes_on() -> None:
    plain, learns = Driven(started(load_pipeline(find_pipeline("elec2")))), Driven(started(learning()))
    assert plain.tell(0, 120) == []
    learns.unit.restore(plain.unit.snapshot())
    assert [profile["rows"] for profile in learns.tell(120, 450)] == [100, 100, 100]
