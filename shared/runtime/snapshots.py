"""A unit's state on disk: plain arrays and the offsets at which they stand, checked by sha256 when read.

A snapshot is an uncompressed numpy archive without objects, named by its order of writing and its sha256,
below `<root>/<pipeline>/<stage>/<unit>/`. It is written beside its place and moved there whole, so that a
kill leaves the one before.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import fsspec
import numpy as np

from shared.errors import Fatal
from shared.runtime.unit import Arrays

KEEP = 2
HEADER = "__header__"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State `arrays` that holds everything before `next_offsets` (by input topic).

    `topic_ids` are the inputs' ids on the broker: a topic that was deleted and made again has another one.
    """

    next_offsets: Mapping[str, int]
    digest: str
    arrays: Arrays
    topic_ids: Mapping[str, str] = field(default_factory=dict)


def pack(snapshot: Snapshot) -> bytes:
    """The snapshot as bytes; plain arrays only."""
    header = json.dumps(
        {
            "next_offsets": dict(snapshot.next_offsets),
            "digest": snapshot.digest,
            "topic_ids": dict(snapshot.topic_ids),
        }
    )
    buffer = io.BytesIO()
    arrays = {name: np.ascontiguousarray(array) for name, array in snapshot.arrays.items()}
    if any(array.dtype.hasobject for array in arrays.values()):
        raise Fatal("a snapshot holds plain arrays only")
    np.savez(buffer, allow_pickle=False, **{HEADER: np.frombuffer(header.encode(), np.uint8), **arrays})
    return buffer.getvalue()


def unpack(raw: bytes) -> Snapshot:
    """The snapshot that `pack` made."""
    with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
        header: dict[str, Any] = json.loads(archive[HEADER].tobytes())
        arrays = {name: archive[name] for name in archive.files if name != HEADER}
    return Snapshot(header["next_offsets"], header["digest"], arrays, header["topic_ids"])


class SnapshotStore:
    """The snapshots of one stage's units below an fsspec address."""

    def __init__(self, url: str, pipeline: str, stage: str) -> None:
        self._files, root = fsspec.core.url_to_fs(url)
        self._root = f"{root}/{pipeline}/{stage}"

    def _names(self, unit: int) -> list[str]:
        folder = f"{self._root}/{unit}"
        if not self._files.exists(folder):
            return []
        names = (str(entry).rsplit("/", 1)[-1] for entry in self._files.ls(folder, detail=False))
        return sorted(name for name in names if name.endswith(".npz"))

    def write(self, unit: int, snapshot: Snapshot) -> int:
        """Keep `snapshot` as the newest of `unit`; return its size in bytes."""
        raw = pack(snapshot)
        names = self._names(unit)
        number = int(names[-1].split("-")[0]) + 1 if names else 0
        folder = f"{self._root}/{unit}"
        self._files.makedirs(folder, exist_ok=True)
        name = f"{number:012d}-{hashlib.sha256(raw).hexdigest()}.npz"
        with self._files.open(f"{folder}/{name}.part", "wb") as file:
            file.write(raw)
        self._files.mv(f"{folder}/{name}.part", f"{folder}/{name}")
        for old in names[: max(0, len(names) + 1 - KEEP)]:
            self._files.rm(f"{folder}/{old}")
        return len(raw)

    def newest(
        self, unit: int, committed: Mapping[str, int], topic_ids: Mapping[str, str] | None = None
    ) -> Snapshot | None:
        """The newest whole snapshot that stands at or before the `committed` offsets, if there is one.

        One that is broken, that is ahead of what was committed, or that was made of a topic with another id
        than `topic_ids` says, is passed over for the one before it.
        """
        current = dict(topic_ids or {})
        for name in reversed(self._names(unit)):
            with self._files.open(f"{self._root}/{unit}/{name}", "rb") as file:
                raw = file.read()
            if hashlib.sha256(raw).hexdigest() != name.removesuffix(".npz").split("-")[1]:
                continue
            snapshot = unpack(raw)
            if any(current.get(topic, told) != told for topic, told in snapshot.topic_ids.items()):
                continue
            if all(committed.get(topic, 0) >= offset for topic, offset in snapshot.next_offsets.items()):
                return snapshot
        return None
