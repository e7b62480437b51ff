"""Datasets made from the ledger: whole segments once, the tail each time, and a manifest that names it all."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pydantic import JsonValue

from services.retrainer.code import code_digest
from services.retrainer.core.ledger import learnable, reach_back
from services.retrainer.core.recipe import (
    SEGMENT_ROWS,
    DatasetManifest,
    SegmentEntry,
    TopicRange,
    root_of,
)
from services.retrainer.core.segments import WRITER, first_difference, ledger_rows, seal, unseal
from services.retrainer.core.statistics import content_of, counts_of, describe_features
from services.retrainer.core.steps import step_key
from services.retrainer.kept import Kept
from services.retrainer.ledger import LINEAGE, Ledger, outcomes
from shared.contracts.pipeline import Pipeline
from shared.errors import Refused
from shared.topics import LABELED, SHADOWS


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is asked for: the newest `window_rows` events that have an outcome at sequence `cut_off`."""

    pipeline: Pipeline
    cut_off: int
    window_rows: int
    windows: tuple[str, ...]


def build(recipe: Recipe, ledger: Ledger, kept: Kept) -> DatasetManifest:
    """Seal what is not sealed yet, and keep the manifest. Refused where the ledger is empty up to there."""
    if recipe.cut_off < 0:
        raise Refused(f"{recipe.pipeline.name} has no outcome yet: there is nothing to learn from")
    topics = ledger.topics()
    entries = list(
        _segments(ledger, kept, recipe.pipeline, recipe.cut_off, topics[LABELED.of(recipe.pipeline.name)])
    )
    entries = entries[-reach_back([each.fresh for each in entries], recipe.window_rows) :]
    tables = [unseal(kept.get("segments", each.sha256)) for each in entries]
    manifest = _manifest(recipe, topics, entries, tables)
    kept.put_manifest(manifest)
    return manifest


def sealed(ledger: Ledger, kept: Kept, pipeline: Pipeline, cut_off: int) -> list[SegmentEntry]:
    """The whole segments up to the cut-off, oldest first."""
    identity = ledger.topics()[LABELED.of(pipeline.name)]
    whole = (cut_off + 1) // SEGMENT_ROWS * SEGMENT_ROWS - 1
    return list(_segments(ledger, kept, pipeline, whole, identity))


def _segments(
    ledger: Ledger, kept: Kept, pipeline: Pipeline, cut_off: int, identity: tuple[str, int]
) -> Iterator[SegmentEntry]:
    """All segments of the ledger up to the cut-off, oldest first."""
    start, first = ledger.begin(), 0
    while first <= cut_off:
        last = min(first + SEGMENT_ROWS - 1, cut_off)
        inputs: JsonValue = [*identity, first, last]
        key = step_key("segment", inputs, WRITER, list(pipeline.feature_names))
        known = kept.step(key)
        entry = SegmentEntry.model_validate(known) if known else _sealed(ledger, kept, start, first, last)
        if known is None:
            kept.put_step(key, entry.model_dump(mode="json"))
        yield entry
        start, first = entry.following, last + 1


def _sealed(ledger: Ledger, kept: Kept, start: int, first: int, last: int) -> SegmentEntry:
    slab = ledger.read(start, first, last)
    data = seal(slab.batch, ledger.program)
    return SegmentEntry(
        first=first,
        last=last,
        start=start,
        following=slab.following,
        fresh=int(outcomes(slab.batch).fresh.sum()),
        bytes=len(data),
        sha256=kept.put("segments", data),
    )


def _manifest(
    recipe: Recipe,
    topics: Mapping[str, tuple[str, int]],
    entries: list[SegmentEntry],
    tables: list[pa.Table],
) -> DatasetManifest:
    pipeline = recipe.pipeline
    rows = ledger_rows(tables, pipeline.feature_names)
    learning = learnable(rows)
    versions = np.concatenate([table["model_version"].to_numpy() for table in tables])
    ledger = LABELED.of(pipeline.name)
    offsets = {ledger: {"0": (entries[0].start, entries[-1].following)}} | _lineage(pipeline.name, tables)
    return DatasetManifest(
        pipeline=pipeline.name,
        feature_names=pipeline.feature_names,
        feature_fingerprint=pipeline.feature_fingerprint,
        classes=pipeline.class_names,
        topics=tuple(
            TopicRange(topic=name, topic_id=topics[name][0], schema_id=topics[name][1], offsets=offsets[name])
            for name in offsets
        ),
        cut_off=recipe.cut_off,
        cut_off_time=int(tables[-1]["order_time"].to_numpy()[-1]),
        window_rows=recipe.window_rows,
        windows=recipe.windows,
        code=code_digest(),
        writer=WRITER,
        counts=counts_of(rows, learning, pipeline.class_names, versions),
        statistics=describe_features(pipeline.feature_names, learning.matrix),
        content=content_of(learning),
        segments=tuple(entries),
        root=root_of(entries),
    )


def _lineage(pipeline: str, tables: list[pa.Table]) -> dict[str, dict[str, tuple[int, int]]]:
    """By topic and partition the first offset that a row names, and the one behind the last."""
    wanted = [f"{prefix}_{part}" for prefix in LINEAGE.values() for part in ("partition", "offset")]
    table = pa.concat_tables([each.select([*dict.fromkeys(wanted), "role"]) for each in tables])
    shadow = np.asarray(table["role"].to_pylist(), object) == "shadow"
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for topic, prefix in LINEAGE.items():
        offsets = table[f"{prefix}_offset"].to_numpy()
        partitions = table[f"{prefix}_partition"].to_numpy()
        named = offsets >= 0
        if prefix == "prediction":
            named &= shadow if topic is SHADOWS else ~shadow
        found[topic.of(pipeline)] = {
            str(p): _span(offsets[named & (partitions == p)]) for p in np.unique(partitions[named]).tolist()
        }
    return {name: spans for name, spans in found.items() if spans}


def _span(offsets: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tuple[int, int]:
    return int(offsets.min()), int(offsets.max()) + 1


def rebuild(manifest: DatasetManifest, ledger: Ledger, kept: Kept) -> list[str]:
    """Read the log again and compare: one sentence a difference, none where every byte is the same."""
    topics = ledger.topics()
    found = [
        f"{part.topic} was made again: {topics[part.topic][0]} is not {part.topic_id}"
        for part in manifest.topics
        if part.topic in topics and topics[part.topic][0] != part.topic_id
    ]
    if found:
        return found
    if manifest.writer != WRITER:
        found.append(f"written by {manifest.writer}, rebuilt by {WRITER}")
    for entry in manifest.segments:
        slab = ledger.read(entry.start, entry.first, entry.last)
        ours = seal(slab.batch, ledger.program)
        difference = _compared(ours, entry, kept)
        if difference is not None:
            found.append(f"sequences {entry.first} to {entry.last}: {difference}")
    return found


def _compared(ours: bytes, entry: SegmentEntry, kept: Kept) -> str | None:
    same = hashlib.sha256(ours).hexdigest() == entry.sha256
    try:
        theirs = kept.get("segments", entry.sha256)
    except Refused as refusal:
        return str(refusal) if same else f"the log gives other bytes, and {refusal}"
    return None if same else first_difference(ours, theirs)
