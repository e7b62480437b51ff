"""A stage as a fold: the Handbook's features, the layouts, the cuts."""

from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest
import xxhash

from services.features.core.digest import vectors_digest
from services.features.core.fold import FeatureFold
from shared.codec.batch import Batch, Column, Floats, Ints, Strings
from shared.codec.program import compile_program
from shared.contracts.generated import features_schema, stage_schema
from shared.contracts.pipeline import Pipeline, find_pipeline, load_pipeline
from shared.errors import Fatal
from tests.unit.features.handbook import TRUTHS, accepted, cuts, needs_handbook

FRAUD = load_pipeline(find_pipeline("fraud"))


def payments(count: int = 400, seed: int = 3) -> Batch:
    """Payments and some labels, a few minutes apart, as rows of accepted.v1."""
    rng = np.random.default_rng(seed)
    event = rng.random(count) < 0.7
    time = np.cumsum(rng.integers(0, 30 * 60_000, count)) + 1_522_540_800_000
    shared: dict[str, Ints | Strings] = {
        "transaction_id": Strings.of([b"%d" % n for n in rng.permutation(count)]),
        "tx_time": time,
        "customer_id": Strings.of([b"c%d" % n for n in rng.integers(0, 5, count)]),
        "terminal_id": Strings.of([b"t%d" % n for n in rng.integers(0, 4, count)]),
    }
    return Batch.of(
        {
            "order_time": time,
            "late": rng.random(count) < 0.1,
            "unit": np.zeros(count, np.int64),
            "source_partition": rng.integers(0, 4, count),
            "source_offset": np.arange(count),
            "input_partition": np.full(count, 2),
            "input_offset": np.arange(count) * 3,
            "event": event,
            "label": ~event,
            **{f"event.{name}": Column(values, event) for name, values in shared.items()},
            **{f"label.{name}": Column(values, ~event) for name, values in shared.items()},
            "event.tx_amount": Column(rng.normal(50, 5, count), event),
            "label.tx_fraud": Column(rng.integers(0, 2, count), ~event),
        }
    )


def both_stages(pipeline: Pipeline, parts: list[Batch]) -> Iterator[Batch]:
    """The vectors of a pipeline of two entities with one unit each."""
    first, second = FeatureFold(pipeline, 0, 0), FeatureFold(pipeline, 1, 0)
    for part in parts:
        passed = first.step(part)
        lineage = {"input_partition": np.zeros(passed.rows, np.int64), "input_offset": np.arange(passed.rows)}
        vectors = second.step(passed.having(**lineage))
        if vectors.rows:
            yield vectors


def matrix_of(vectors: Batch) -> Floats:
    return np.column_stack([vectors[f"features.{name}"].array for name in FRAUD.feature_names])


@needs_handbook
def test_every_published_feature_of_the_handbook_is_reproduced() -> None:
    vectors = Batch.concat(list(both_stages(FRAUD, cuts(accepted(), 20_000))))
    assert vectors.rows == 1_169_723
    ids = np.array([int(n) for n in vectors["event_id"].strings.to_list()])
    compared = 0
    for path in TRUTHS:
        truth = pl.read_csv(path)
        rows = np.searchsorted(ids, truth["TRANSACTION_ID"].to_numpy())
        for name in truth.columns[1:]:
            want = truth[name].to_numpy().astype(np.float64)
            got = vectors[f"features.{name}"].array[rows]
            exact = "_NB_TX_" in name or "DURING" in name
            np.testing.assert_allclose(got, want, rtol=0, atol=0 if exact else 1e-6, err_msg=name)
            compared += got.size
    assert compared == 134_216 * 14


def test_outputs_fit_the_schemas_of_their_topics() -> None:
    first = FeatureFold(FRAUD, 0, 1)
    passed = first.step(payments())
    program = compile_program(stage_schema(FRAUD, 0))
    back = program.decode(program.encode(passed)).batch
    assert set(back.columns) == set(passed.columns)
    assert set(passed["unit"].array.tolist()) == {1}
    np.testing.assert_array_equal(back["label"].array, passed["label"].array)
    lineage = {"input_partition": np.zeros(passed.rows, np.int64), "input_offset": np.arange(passed.rows)}
    vectors = FeatureFold(FRAUD, 1, 2).step(back.having(**lineage))
    program = compile_program(features_schema(FRAUD))
    assert set(program.decode(program.encode(vectors)).batch.columns) == set(vectors.columns)


def test_the_last_stage_says_where_each_vector_comes_from() -> None:
    batch = payments()
    vectors = Batch.concat(list(both_stages(FRAUD, [batch])))
    events = batch.take(batch["event"].array)
    for name in ("order_time", "late", "source_partition", "source_offset"):
        np.testing.assert_array_equal(vectors[name].array, events[name].array)
    assert vectors["event_id"].strings.to_list() == events["event.transaction_id"].strings.to_list()
    assert vectors["key"].strings.to_list() == events["event.customer_id"].strings.to_list()
    hashes = [xxhash.xxh64_intdigest(row.tobytes()) >> 11 for row in matrix_of(vectors)]
    np.testing.assert_array_equal(vectors["feature_hash"].array, hashes)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_cuts_change_nothing(size: int) -> None:
    batch = payments()
    whole = Batch.concat(list(both_stages(FRAUD, [batch])))
    cut = Batch.concat(list(both_stages(FRAUD, cuts(batch, size))))
    np.testing.assert_array_equal(cut["feature_hash"].array, whole["feature_hash"].array)


def test_a_restored_stage_goes_on_bit_equal() -> None:
    begin, end = cuts(payments(), 200)
    straight = FeatureFold(FRAUD, 0, 0)
    straight.step(begin)
    restored = FeatureFold(FRAUD, 0, 0)
    restored.restore(straight.snapshot())
    assert restored.digest() == straight.digest()
    want, got = straight.step(end), restored.step(end)
    for name, column in want.columns.items():
        if name.startswith("event.features."):
            np.testing.assert_array_equal(got[name].array, column.array)
    assert restored.digest() == straight.digest()


def test_a_label_that_is_none_of_the_classes_is_fatal() -> None:
    batch = payments()
    lineage = {"input_partition": np.zeros(batch.rows, np.int64), "input_offset": np.arange(batch.rows)}
    passed = FeatureFold(FRAUD, 0, 0).step(batch).having(**lineage)
    wrong = Column(np.full(passed.rows, 2), passed["label"].array)
    with pytest.raises(Fatal, match="tx_fraud"):
        FeatureFold(FRAUD, 1, 0).step(passed.having(**{"label.tx_fraud": wrong}))


def test_a_pipeline_without_windows_folds_expressions_alone() -> None:
    elec2 = load_pipeline(find_pipeline("elec2"))
    names = ("day", "period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer")
    flags = np.array([True, False, True])
    batch = Batch.of(
        {
            **{name: np.arange(3) for name in ("order_time", "source_partition", "source_offset")},
            **{name: np.arange(3) for name in ("input_partition", "input_offset", "event.event_time")},
            "late": np.zeros(3, np.bool_),
            "event": flags,
            "label": ~flags,
            "event.row_id": Strings.of([b"0", b"", b"1"]),
            "event.market": Strings.of([b"nsw", b"", b"nsw"]),
            **{f"event.{name}": Column(np.array([0.5, 9.0, 1.0]), flags) for name in names},
        }
    )
    fold = FeatureFold(elec2, 0, 0)
    vectors = fold.step(batch)
    assert vectors.rows == 2
    assert [vectors[f"features.{name}"].array.tolist() for name in names] == [[0.5, 1.0]] * 7
    other = FeatureFold(elec2, 0, 0)
    other.restore(fold.snapshot())
    assert other.digest() == fold.digest()


def test_the_digest_of_vectors_tells_vectors_apart_but_not_their_order() -> None:
    ids = Strings.of([b"a", b"b", b"b"])
    vectors = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    digest = vectors_digest(ids, vectors)
    for order in ([2, 1, 0], [1, 2, 0]):
        assert vectors_digest(ids.take(np.array(order)), vectors[order]) == digest
    assert vectors_digest(ids, vectors + 1e-12) != digest
    assert vectors_digest(Strings.of([b"a", b"bb", b""]), vectors) != digest
    assert vectors_digest(ids, np.array([[1.0, 2.0], [3.0, 4.0], [5.0, np.nan]])) != digest
    assert vectors_digest(ids.take(np.array([0])), np.array([[0.0]])) == vectors_digest(
        ids.take(np.array([0])), np.array([[-0.0]])
    )
