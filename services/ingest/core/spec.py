"""What the rows of one topic must be: drawn from the declaration once, used by intake for every batch."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.ingest.core.reasons import Reasons
from shared.contracts.pipeline import Label, Pipeline
from shared.contracts.tables import Rule
from shared.runtime.merge import EVENT, LABEL


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes beyond which a record is turned away before it is looked at."""

    max_value_bytes: int = 1_000_000
    max_key_bytes: int = 1_024
    max_headers: int = 32
    max_header_bytes: int = 65_536


@dataclass(frozen=True, slots=True)
class Classes:
    """The declared outcomes of a label, in the form in which its field is decoded."""

    field: str
    numbers: tuple[int, ...] = ()
    texts: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Spec:
    """One topic's rows: `kind` is EVENT or LABEL, `id`, `time` and `key` name fields; times are milliseconds.

    `key` is None where the record does not repeat its key.
    """

    topic: str
    kind: int
    id: str
    time: str
    key: str | None
    max_future_ms: int
    max_age_ms: int | None
    rules: tuple[Rule, ...]
    classes: Classes | None
    unit: int
    partitions: int
    limits: Limits
    reasons: Reasons


def event_spec(
    pipeline: Pipeline, topic: str, unit: int, partitions: int, limits: Limits, avro: tuple[str, ...]
) -> Spec:
    """What events must be; `avro` are the decoder's reasons by status."""
    event = pipeline.event
    rules = [(rule.field, _bounds(rule)) for rule in event.rules]
    facts = _facts(pipeline, topic, limits)
    return Spec(
        topic,
        EVENT,
        event.id,
        event.time,
        event.key,
        event.max_future_ms,
        event.max_age_ms,
        event.rules,
        None,
        unit,
        partitions,
        limits,
        Reasons(avro, rules, facts),
    )


def label_spec(
    pipeline: Pipeline, topic: str, unit: int, partitions: int, limits: Limits, avro: tuple[str, ...]
) -> Spec | None:
    """What labels must be; None where the pipeline has none. Late by nature, their age has no bound."""
    label = pipeline.label
    if label is None:
        return None
    key = pipeline.event.key if pipeline.event.key in label.fields else None
    return Spec(
        topic,
        LABEL,
        label.id,
        label.time,
        key,
        pipeline.event.max_future_ms,
        None,
        (),
        _classes(label),
        unit,
        partitions,
        limits,
        Reasons(avro, (), _facts(pipeline, topic, limits)),
    )


def _classes(label: Label) -> Classes:
    avro = label.fields[label.field].avro
    if isinstance(avro, Mapping) and avro.get("type") == "enum":
        symbols: list[str] = list(avro["symbols"])
        return Classes(label.field, numbers=tuple(symbols.index(str(c)) for c in label.classes))
    if isinstance(label.classes[0], str):
        return Classes(label.field, texts=tuple(str(c).encode() for c in label.classes))
    return Classes(label.field, numbers=tuple(int(c) for c in label.classes))


def _bounds(rule: Rule) -> str:
    low = "-∞" if rule.min is None else f"{rule.min:g}"
    high = "∞" if rule.max is None else f"{rule.max:g}"
    return f"[{low}, {high}]"


def _facts(pipeline: Pipeline, topic: str, limits: Limits) -> dict[str, object]:
    label = pipeline.label
    return {
        "topic": topic,
        "key": pipeline.event.key,
        "time": pipeline.event.time,
        "label": "" if label is None else label.field,
        "classes": [] if label is None else list(label.classes),
        "max_value_bytes": limits.max_value_bytes,
        "max_key_bytes": limits.max_key_bytes,
        "max_headers": limits.max_headers,
        "max_header_bytes": limits.max_header_bytes,
    }
