"""Sealed datasets: the same bytes for the same log, each event once with its newest class; what is odd is said."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.retrainer.core.ledger import LedgerRows, learnable, reach_back
from services.retrainer.core.merkle import merkle_root
from services.retrainer.core.recipe import SEGMENT_ROWS, DatasetManifest, differences
from services.retrainer.core.segments import first_difference, ledger_rows, seal, unseal
from services.retrainer.core.statistics import anomalies, content_of
from services.retrainer.datasets import Recipe, build, rebuild
from services.retrainer.kept import Kept
from shared.codec.batch import Batch, Strings
from shared.codec.program import compile_program
from shared.codec.reference import Subfield
from shared.contracts.generated import LABEL_KINDS, labeled_schema
from shared.contracts.pipeline import Pipeline
from shared.errors import Refused
from tests.unit.retrainer.loops import MemoryLedger, declared, rows_of

PIPELINE = declared()
NAMES = PIPELINE.feature_names


def recipe(cut_off: int, window_rows: int = 400, pipeline: Pipeline = PIPELINE) -> Recipe:
    return Recipe(pipeline, cut_off, window_rows, ("last",))


def rows_in(batch: Batch, pipeline: Pipeline = PIPELINE) -> LedgerRows:
    program = compile_program(labeled_schema(pipeline))
    return ledger_rows([unseal(seal(batch, program))], pipeline.feature_names)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(f"{tmp_path}/kept")


def test_segments_are_sealed_once_and_rebuilt_byte_for_byte(kept: Kept) -> None:
    ledger = MemoryLedger(PIPELINE, rows_of(PIPELINE, 2 * SEGMENT_ROWS + 500))
    early = build(recipe(SEGMENT_ROWS + 99, 12_000), ledger, kept)
    late = build(recipe(2 * SEGMENT_ROWS + 99, 12_000), ledger, kept)
    assert [(each.first, each.last, each.sealed) for each in late.segments] == [
        (0, 9_999, True),
        (10_000, 19_999, True),
        (20_000, 20_099, False),
    ]
    assert early.segments[0] == late.segments[0]
    assert early.segments[1].sha256 != late.segments[1].sha256
    assert rebuild(early, ledger, kept) == rebuild(late, ledger, kept) == []
    again = build(recipe(2 * SEGMENT_ROWS + 99, 12_000), ledger, Kept(f"{kept.url}-other"))
    assert again.id == late.id
    narrow = build(recipe(2 * SEGMENT_ROWS + 99, 150), ledger, kept)
    assert [each.first for each in narrow.segments] == [10_000, 20_000]


def test_a_rebuild_names_the_first_difference(kept: Kept) -> None:
    batch = rows_of(PIPELINE, 300)
    manifest = build(recipe(299), MemoryLedger(PIPELINE, batch), kept)
    changed = batch["features.b"].array.copy()
    changed[41] += 1e-9
    other = MemoryLedger(PIPELINE, batch.having(**{"features.b": changed}))
    [said] = rebuild(manifest, other, kept)
    assert said.startswith("sequences 0 to 299: row 41, features.b: ")


def test_a_stored_segment_that_was_changed_is_seen(kept: Kept, tmp_path: Path) -> None:
    ledger = MemoryLedger(PIPELINE, rows_of(PIPELINE, 100))
    manifest = build(recipe(99), ledger, kept)
    path = next((tmp_path / "kept" / "segments").iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert "not what its name says" in rebuild(manifest, ledger, kept)[0]
    path.unlink()
    assert "has no segments" in rebuild(manifest, ledger, kept)[0]


def test_a_topic_that_was_made_again_is_seen(kept: Kept) -> None:
    ledger = MemoryLedger(PIPELINE, rows_of(PIPELINE, 100))
    manifest = build(recipe(99), ledger, kept)
    parts = tuple(each.model_copy(update={"topic_id": "other"}) for each in manifest.topics)
    said = rebuild(manifest.model_copy(update={"topics": parts}), ledger, kept)
    assert len(said) == len(parts)
    assert all("made again" in each for each in said)


def test_the_manifest_says_where_every_row_came_from(kept: Kept) -> None:
    batch = rows_of(PIPELINE, 100)
    roles = Strings.of([b"shadow" if i % 10 == 9 else b"champion" for i in range(100)])
    manifest = build(recipe(99), MemoryLedger(PIPELINE, batch.having(role=roles)), kept)
    assert DatasetManifest.parse(manifest.canonical()) == manifest
    assert kept.manifest(manifest.id[:8]) == manifest
    offsets = {each.topic: each.offsets for each in manifest.topics}
    assert next(iter(offsets)) == "small.labeled.v1"
    assert offsets["small.labeled.v1"] == {"0": (0, 199)}
    assert offsets["small.events.v1"] == {"0": (0, 99), "1": (1, 100)}
    assert offsets["small.predictions.v1"] == {"0": (0, 99)}
    assert offsets["small.shadows.v1"] == {"0": (9, 100)}
    assert manifest.counts["rows"] == {"all": 100, "shadow": 10, "events": 90}
    assert sum(manifest.counts["class"].values()) == 90
    assert manifest.counts["source"] == {"bank": 50, "shop": 40}
    assert manifest.counts["version"] == {"1": 90}
    assert set(manifest.statistics["a"]) == {"missing", "minimum", "maximum", "mean", "deviation"}


def test_a_manifest_that_was_changed_is_refused(kept: Kept) -> None:
    manifest = build(recipe(99), MemoryLedger(PIPELINE, rows_of(PIPELINE, 100)), kept)
    data = manifest.canonical()
    for wrong in (
        data[:-1],
        data.replace(b'"cut_off":99', b'"cut_off":99.0'),
        data.replace(manifest.segments[0].sha256.encode(), b"0" * 64),
        data.replace(b'"root":', b'"extra":1,"root":'),
        b"[]",
    ):
        with pytest.raises(Refused, match="not a dataset"):
            DatasetManifest.parse(wrong)


def test_differences_are_named_by_field(kept: Kept) -> None:
    ledger = MemoryLedger(PIPELINE, rows_of(PIPELINE, 200))
    one, other = build(recipe(99), ledger, kept), build(recipe(199), ledger, kept)
    assert differences(one, one) == []
    found = {each.field: (each.before, each.after) for each in differences(one, other)}
    assert found["cut_off"] == (99, 199)
    assert found["counts.rows.all"] == (100, 200)
    assert "segments.0.sha256" in found
    assert "code" not in found


def test_an_empty_ledger_is_refused(kept: Kept) -> None:
    with pytest.raises(Refused, match="no outcome yet"):
        build(recipe(-1), MemoryLedger(PIPELINE, rows_of(PIPELINE, 0)), kept)


def test_each_event_once_with_its_newest_class() -> None:
    told = [
        # event, kind, class, previous, role
        (b"old", "CORRECTION", 1, 0, b"champion"),  # its first outcome lies before these rows
        (b"a", "LABEL", 0, -1, b"champion"),
        (b"b", "MISSING", 0, -1, b"canary"),
        (b"b", "MISSING", 0, -1, b"shadow"),
        (b"c", "LABEL", 1, -1, b"champion"),
        (b"b", "LATE", 1, 0, b"canary"),
        (b"b", "LATE", 1, 0, b"shadow"),
        (b"a", "CORRECTION", 1, 0, b"champion"),
        (b"a", "CORRECTION", 0, 1, b"champion"),
        (b"d", "LATE", 1, -1, b"champion"),  # its horizon passed, and no class stands for a missing one
    ]
    batch = rows_of(
        PIPELINE,
        len(told),
        event_id=Strings.of([each[0] for each in told]),
        kind=np.array([LABEL_KINDS.index(each[1]) for each in told], np.int32),
        label_class=np.array([each[2] for each in told]),
        previous_class=np.array([each[3] for each in told]),
        role=Strings.of([each[4] for each in told]),
    )
    rows = learnable(rows_in(batch))
    assert rows.sequences.tolist() == [1, 2, 4, 9]
    assert rows.classes.tolist() == [0, 1, 1, 1]
    assert np.array_equal(rows.matrix[:, 0], batch["features.a"].array[[1, 2, 4, 9]])


def test_content_is_the_same_in_whatever_order_outcomes_came() -> None:
    batch = rows_of(PIPELINE, 200)
    order = np.random.default_rng(1).permutation(200)
    shuffled = batch.take(order).having(sequence=np.arange(200))
    assert content_of(learnable(rows_in(batch))) == content_of(learnable(rows_in(shuffled)))
    flipped = batch["label_class"].array.copy()
    flipped[3] ^= 1
    other = batch.having(label_class=flipped)
    assert content_of(learnable(rows_in(batch))) != content_of(learnable(rows_in(other)))


def test_probabilities_of_several_classes_are_sealed_as_lists() -> None:
    pipeline = declared(("x", "y", "z"))
    doubles = Subfield({"type": "array", "items": "double"})
    values = [[0.2, 0.3, 0.5], [], [1.0, 0.0, 0.0]]
    batch = rows_of(pipeline, 3, probabilities=Strings.of([doubles.encode(each) for each in values]))
    table = unseal(seal(batch, compile_program(labeled_schema(pipeline))))
    assert table["probabilities"].to_pylist() == values
    assert table["role"].to_pylist() == ["champion"] * 3
    assert table["kind"].to_pylist() == ["LABEL"] * 3


def test_sealing_leaves_no_trace_of_when_or_how_rows_were_held() -> None:
    program = compile_program(labeled_schema(PIPELINE))
    batch = rows_of(PIPELINE, 500)
    parts = Batch.concat([batch.take(np.arange(200)), batch.take(np.arange(200, 500))])
    data = seal(batch, program)
    assert seal(parts, program) == data
    assert first_difference(data, seal(parts, program)) is None
    assert first_difference(data, data[:-9]) is not None


def test_the_root_changes_with_every_leaf_their_order_and_number() -> None:
    leaves = [hashlib.sha256(bytes([i])).digest() for i in range(5)]
    others = [merkle_root(leaves[:n]) for n in range(6)] + [merkle_root(leaves[::-1])]
    assert len(set(others)) == 7
    for i in range(5):
        assert merkle_root([*leaves[:i], b"x", *leaves[i + 1 :]]) not in others
    assert merkle_root([leaves[0], leaves[1]]) != merkle_root([leaves[0] + leaves[1]])


def test_reach_back_takes_no_more_than_is_there() -> None:
    assert reach_back([5, 5], 100) == 2
    assert reach_back([100, 1], 1) == 1


@pytest.mark.parametrize(
    ("code", "stops", "change"),
    [
        ("rows.few", True, {}),
        ("class.single", True, {"label_class": np.zeros(400, np.int64)}),
        ("feature.constant", False, {"features.b": np.full(400, 7.0)}),
        ("feature.missing", False, {"features.b": np.where(np.arange(400) % 7 == 0, np.nan, 1.0)}),
        ("feature.infinite", False, {"features.b": np.where(np.arange(400) == 7, np.inf, 1.0)}),
        ("label.rate", False, {"label_class": (np.arange(400) > 330).astype(np.int64)}),
        ("label.missing", False, {"kind": np.full(400, 1, np.int32)}),
    ],
)
def test_anomalies(code: str, stops: bool, change: dict[str, Any]) -> None:
    batch = rows_of(PIPELINE, 400, **change)
    rows = rows_in(batch)
    kinds = np.bincount(rows.kinds, minlength=4)
    least = 500 if code == "rows.few" else 50
    found = anomalies(
        learnable(rows),
        NAMES,
        PIPELINE.class_names,
        least,
        dict(zip(LABEL_KINDS, kinds.tolist(), strict=True)),
    )
    assert (code, stops) in [(each.code, each.stops) for each in found]


def test_good_rows_have_no_anomalies() -> None:
    rows = learnable(rows_in(rows_of(PIPELINE, 400)))
    assert anomalies(rows, NAMES, PIPELINE.class_names, 50, {"LABEL": 400}) == []


def test_a_class_that_never_came_is_named() -> None:
    rows = learnable(rows_in(rows_of(PIPELINE, 400)))
    said = anomalies(rows, NAMES, ("no", "yes", "perhaps"), 50, {"LABEL": 400})
    assert [(each.code, each.subject) for each in said] == [("class.absent", "perhaps")]
