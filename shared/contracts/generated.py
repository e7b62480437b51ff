"""The schemas that follow from a declaration: what ingest, each features stage and the last of them write.

Accepted and stage topics carry an envelope in which exactly one of `event`, `label` and `progress` is set; a
progress row says that the writer's unit has come to `order_time`. Functions return fresh parsed JSON.
"""

import copy
from collections.abc import Iterable
from typing import Any

import schemas
from shared.contracts.pipeline import Event, Label, Pipeline
from shared.contracts.tables import ExpressionFeature, WindowFeature

Schema = dict[str, Any]

_TIME = {"type": "long", "logicalType": "timestamp-millis"}
LABEL_KINDS = ("LABEL", "MISSING", "LATE", "CORRECTION")
"""How an outcome became known; the index is the enum's number."""


def accepted_schema(pipeline: Pipeline) -> Schema:
    """accepted.v1: events and labels as they came, in one order per key."""
    label = pipeline.label
    return _record(
        pipeline,
        "Accepted",
        "An event, a label or a word of progress, as ingest let it pass.",
        _envelope(
            copy.deepcopy(pipeline.event.avro),
            copy.deepcopy(label.avro) if label is not None else None,
        ),
    )


def stage_schema(pipeline: Pipeline, stage: int) -> Schema:
    """What features stage number `stage`, not the last one, hands to the next.

    The event is cut down to what later stages need; the label is there only if a later entity uses labels.
    """
    later = pipeline.entities[stage + 1 :]
    if not later:
        raise ValueError(f"stage {stage} of {pipeline.name} is the last one: it writes features_schema")
    label = None
    if pipeline.label is not None and any(entity.uses_labels for entity in later):
        label = _stage_label(pipeline, pipeline.label, stage)
    entity = pipeline.entities[stage].name
    return _record(
        pipeline,
        f"After{entity.title().replace('_', '')}",
        f"An event, a label or a word of progress behind the stage of entity {entity}.",
        _envelope(_stage_event(pipeline, pipeline.event, stage), label),
    )


def features_schema(pipeline: Pipeline) -> Schema:
    """features.v1: one vector an event, with the way it came."""
    return _record(
        pipeline,
        "FeatureVector",
        "The features of one event, as they were when it passed.",
        [
            _field("event_id", "string", "The event's id, as declared."),
            _field("key", "string", "The event's key."),
            _field("event_time", _TIME, "When the event happened."),
            *_order_fields(),
            _field("source_partition", "int", "Partition of events.v1 in which the event arrived."),
            _field("source_offset", "long", "Its offset there."),
            _field("input_partition", "int", "Partition from which the last stage read the event."),
            _field("input_offset", "long", "Its offset there."),
            _field(
                "feature_hash",
                "long",
                "Upper 53 bits of XXH64 of the feature vector as little-endian doubles.",
            ),
            _field("features", _features(pipeline, pipeline.feature_names, "Features"), "In declared order."),
        ],
    )


def joined_schema(pipeline: Pipeline) -> Schema:
    """joined.v1: an outcome beside what was served and answered, in the order of its unit."""
    outcome = _record(
        pipeline, "Outcome", "An event's outcome beside its vector and prediction.", _outcome(pipeline)
    )
    return _record(
        pipeline,
        "Joined",
        "An outcome or a word of progress, from one unit of the join.",
        _envelope(outcome, None),
    )


def labeled_schema(pipeline: Pipeline) -> Schema:
    """labeled.v1: the ledger of outcomes, in one order."""
    return _record(
        pipeline,
        "Labeled",
        "An event's outcome beside its vector and prediction, numbered in one order.",
        [
            _field("sequence", "long", "Counts the ledger's rows from 0, without gaps."),
            *_order_fields(),
            *_outcome(pipeline),
        ],
    )


def _outcome(pipeline: Pipeline) -> list[Schema]:
    kind = {
        "type": "enum",
        "name": "LabelKind",
        "namespace": _namespace(pipeline),
        "doc": "LABEL came in time; MISSING is the declared class of an event without; LATE came after the "
        "horizon; CORRECTION replaces one before.",
        "symbols": list(LABEL_KINDS),
    }
    doubles = {"type": "array", "items": "double"}
    return [
        _field("kind", kind, "How the outcome became known."),
        _field("event_id", "string", "The event's id, as declared."),
        _field("key", "string", "The event's key."),
        _field("event_time", _TIME, "When the event happened."),
        _field("label_time", _TIME, "The order time at which the outcome was known."),
        _field("label", "string", "The outcome."),
        _field("label_class", "int", "Its index among the declared classes."),
        _field("previous_class", "int", "The index that it replaces; -1 for none."),
        _field("label_source", "string", "Who reported it; empty where that is not declared."),
        _field("score", "double", "The prediction's score."),
        _field("predicted", "string", "The prediction's label."),
        _field("predicted_class", "int", "The predicted class's index."),
        _field("probabilities", doubles, "Of each class, where there are more than two."),
        _field("model_name", "string", "The model that answered."),
        _field("model_version", "long", "Its version."),
        _field("model_digest", "string", "sha256 of its manifest, in hex."),
        _field("role", "string", "champion, canary or shadow."),
        _field("registry_offset", "long", "Offset on models.v1 of the announcement that was obeyed."),
        _field("feature_hash", "long", "As in the vector and the prediction."),
        _field("event_partition", "int", "Partition of events.v1 in which the event arrived."),
        _field("event_offset", "long", "Its offset there."),
        _field("label_partition", "int", "Partition of accepted.v1 in which the label stands."),
        _field("label_offset", "long", "Its offset there; -1 for one that is missing."),
        _field("vector_partition", "int", "Partition of features.v1 in which the vector stands."),
        _field("vector_offset", "long", "Its offset there."),
        _field("prediction_partition", "int", "Partition of predictions.v1, or shadows.v1 for a shadow."),
        _field("prediction_offset", "long", "The prediction's offset there."),
        _field("features", _features(pipeline, pipeline.feature_names, "Features"), "As served."),
    ]


def _record(pipeline: Pipeline, name: str, doc: str, fields: list[Schema]) -> Schema:
    return {
        "type": "record",
        "name": name,
        "namespace": _namespace(pipeline),
        "doc": doc,
        "fields": fields,
    }


def _namespace(pipeline: Pipeline) -> str:
    return f"millrace.{pipeline.name.replace('-', '_')}.v1"


def _feature(feature: ExpressionFeature | WindowFeature) -> Schema:
    default = feature.default if isinstance(feature, WindowFeature) else 0.0
    return {**_field(feature.name, "double", describe(feature)), "default": default}


def _field(name: str, avro: Any, doc: str) -> Schema:
    return {"name": name, "type": copy.deepcopy(avro), "doc": doc}


def _optional(name: str, avro: Any, doc: str) -> Schema:
    return {"name": name, "type": ["null", avro], "doc": doc, "default": None}


def _order_fields() -> list[Schema]:
    return [
        _field("order_time", _TIME, "The time that orders the record among all others."),
        _field("late", "boolean", "Whether it came after its place in the order had passed."),
    ]


def _envelope(event: Schema, label: Schema | None) -> list[Schema]:
    progress = {**schemas.platform_schema("progress")}
    fields = [
        *_order_fields(),
        _field("unit", "int", "The writer's unit of work: its input partition."),
        _field("source_partition", "int", "Partition of the source topic in which the record arrived."),
        _field("source_offset", "long", "Its offset there; -1 for progress."),
        _optional("event", event, "The event, where this is one."),
    ]
    if label is not None:
        fields.append(_optional("label", label, "The label, where this is one."))
    fields.append(_optional("progress", progress, "How far the unit has come, where this says so."))
    return fields


def _stage_event(pipeline: Pipeline, event: Event, stage: int) -> Schema:
    later = [f for k in range(stage + 1, len(pipeline.entities)) for f in pipeline.windows_of(k)]
    used = [f.field for f in later if f.field is not None and f.field != "label"]
    keys = [entity.key for entity in pipeline.entities[stage + 1 :]]
    schema = _subset(event.avro, [event.id, event.time, event.key, *keys, *used])
    computed = pipeline.computed_after(stage)
    schema["fields"].append(
        _field(
            "features",
            _features(pipeline, computed, "PartialFeatures"),
            "Computed so far, in declared order.",
        )
    )
    return schema


def _stage_label(pipeline: Pipeline, label: Label, stage: int) -> Schema:
    last = max(i for i, entity in enumerate(pipeline.entities) if entity.uses_labels)
    keys = [entity.key for entity in pipeline.entities[stage + 1 : last + 1]]
    return _subset(label.avro, [label.id, label.time, *keys, label.field])


def _subset(record: Schema, names: Iterable[str]) -> Schema:
    """A record with these fields of another, each once, in the order of `names`."""
    by_name = {field["name"]: field for field in record["fields"]}
    fields = [copy.deepcopy(by_name[name]) for name in dict.fromkeys(names)]
    return {**{k: v for k, v in record.items() if k != "aliases"}, "fields": fields}


def _features(pipeline: Pipeline, names: Iterable[str], record: str) -> Schema:
    by_name = {feature.name: feature for feature in pipeline.features}
    return {
        "type": "record",
        "name": record,
        "namespace": _namespace(pipeline),
        "doc": "One number a feature; in a vector older than a feature, that feature reads as its default.",
        "fields": [_feature(by_name[name]) for name in names],
    }


def describe(feature: ExpressionFeature | WindowFeature) -> str:
    """A feature's definition in one line."""
    if isinstance(feature, ExpressionFeature):
        return feature.expression
    of = f" of {feature.field}" if feature.field else ""
    delay = f", {_human(feature.delay_ms)} ago" if feature.delay_ms else ""
    return f"{feature.aggregate}{of} over {_human(feature.window_ms)} of the {feature.entity}{delay}"


def _human(ms: int) -> str:
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if ms % size == 0:
            return f"{ms // size}{unit}"
    return f"{ms}ms"
