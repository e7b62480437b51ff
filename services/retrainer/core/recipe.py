"""What a dataset is, in one JSON document: where each row came from, what the rows hold, and what they hash to."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from services.retrainer.core.merkle import merkle_root
from services.retrainer.core.steps import canonical
from shared.errors import Refused
from shared.models.safety import strict_json

SEGMENT_ROWS = 10_000
"""Sequences in a whole segment: number s holds [s * 10,000, (s + 1) * 10,000)."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SegmentEntry(_Frozen):
    """A run of the ledger: sequences from `first` to `last`, at these offsets of labeled.v1, in one file."""

    first: int = Field(ge=0)
    last: int = Field(ge=0)
    start: int = Field(ge=0)
    """Offset from which the log is read to find the first row."""
    following: int = Field(ge=0)
    """The offset behind the last row."""
    fresh: int = Field(ge=0)
    """How many rows are an event's first outcome."""
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def sealed(self) -> bool:
        """Whether it is whole: no later dataset has more in it."""
        return (self.last + 1) % SEGMENT_ROWS == 0


class TopicRange(_Frozen):
    """What a dataset takes of a topic: its id on the broker, its schema's, and offsets by partition."""

    topic: str
    topic_id: str
    schema_id: int
    offsets: dict[str, tuple[int, int]]
    """By partition the first offset and the one behind the last."""


class DatasetManifest(_Frozen):
    """A sealed dataset; its id is the sha256 of its canonical bytes."""

    format: Literal["millrace.dataset.v1"] = "millrace.dataset.v1"
    pipeline: str
    feature_names: tuple[str, ...]
    feature_fingerprint: str
    classes: tuple[str, ...]
    topics: tuple[TopicRange, ...]
    """labeled.v1 first, then the topics that its rows name."""
    cut_off: int = Field(ge=0)
    """The newest sequence that may be seen."""
    cut_off_time: int
    """Its order time, in milliseconds."""
    window_rows: int = Field(ge=1)
    """So many events with an outcome are asked for."""
    windows: tuple[str, ...]
    code: str
    """sha256 over the sources that made it."""
    writer: str
    """What wrote the Parquet files: other versions may give other bytes for the same rows."""
    counts: dict[str, dict[str, int]]
    statistics: dict[str, dict[str, float]]
    content: str
    """sha256 over id, class and vector of every event, whatever the order in which they became known."""
    segments: tuple[SegmentEntry, ...]
    root: str

    def canonical(self) -> bytes:
        """The only byte form."""
        return canonical(self.model_dump(mode="json"))

    @property
    def id(self) -> str:
        """sha256 in hex of the canonical bytes."""
        return hashlib.sha256(self.canonical()).hexdigest()

    @property
    def ledger(self) -> TopicRange:
        """labeled.v1's part."""
        return self.topics[0]

    @staticmethod
    def parse(data: bytes) -> "DatasetManifest":
        """Read canonical bytes; Refused for anything else, or where the root is not that of the segments."""
        try:
            manifest = DatasetManifest.model_validate(strict_json(data))
        except (ValueError, ValidationError) as error:
            raise Refused(f"not a dataset's manifest: {str(error).splitlines()[0]}") from error
        if manifest.canonical() != data or manifest.root != root_of(manifest.segments):
            raise Refused("not a dataset's manifest: its bytes or its root are not what they should be")
        return manifest


def root_of(segments: Sequence[SegmentEntry]) -> str:
    """The Merkle root over the segments' sha256."""
    return merkle_root([bytes.fromhex(each.sha256) for each in segments])


@dataclass(frozen=True, slots=True)
class Difference:
    """One place in which two datasets differ."""

    field: str
    before: JsonValue
    after: JsonValue


def differences(before: DatasetManifest, after: DatasetManifest) -> list[Difference]:
    """Every field, and every count or statistic, that differs, by name; segments by their first sequence."""
    return [Difference(*place) for place in _walk("", _as_tree(before), _as_tree(after))]


def _as_tree(manifest: DatasetManifest) -> dict[str, Any]:
    tree = manifest.model_dump(mode="json")
    tree["segments"] = {str(each["first"]): each for each in tree["segments"]}
    tree["topics"] = {each["topic"]: each for each in tree["topics"]}
    return tree


def _walk(prefix: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    found = []
    for name in sorted(before.keys() | after.keys()):
        one, other = before.get(name), after.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found += _walk(f"{prefix}{name}.", one, other)
        elif one != other:
            found.append((f"{prefix}{name}", one, other))
    return found
