"""Schemas that follow from a declaration: their shape, validity, and what a change does to them."""

import json
from typing import Any

import fastavro
import pytest

import schemas
from shared.contracts.compat import obstacles
from shared.contracts.generated import accepted_schema, features_schema, stage_schema
from shared.contracts.lint import lint_text
from shared.contracts.pipeline import Pipeline, find_pipeline, load_pipeline
from shared.contracts.subjects import subjects_of
from tests.unit.contracts.texts import TOML, parse

ENVELOPE = ["order_time", "late", "unit", "source_partition", "source_offset", "event", "label", "progress"]


def names(record: dict[str, Any]) -> list[str]:
    return [field["name"] for field in record["fields"]]


def part(record: dict[str, Any], name: str) -> Any:
    avro = next(field["type"] for field in record["fields"] if field["name"] == name)
    return avro[1] if isinstance(avro, list) else avro


def every_schema(pipeline: Pipeline) -> list[dict[str, Any]]:
    stages = [stage_schema(pipeline, stage) for stage in range(len(pipeline.entities) - 1)]
    return [accepted_schema(pipeline), *stages, features_schema(pipeline)]


@pytest.mark.parametrize("name", schemas.pipeline_names())
def test_generated_schemas_pass_the_lint(name: str) -> None:
    for schema in every_schema(load_pipeline(find_pipeline(name))):
        assert lint_text(json.dumps(schema), name) == []
        fastavro.parse_schema(schema)


def test_accepted_wraps_event_label_and_progress() -> None:
    pipeline = parse()
    schema = accepted_schema(pipeline)
    assert names(schema) == ENVELOPE
    assert part(schema, "event") == pipeline.event.avro
    assert pipeline.label is not None
    assert part(schema, "label") == pipeline.label.avro
    assert names(part(schema, "progress")) == ["idle"]


def test_a_stage_hands_on_what_later_ones_need_and_no_more() -> None:
    schema = stage_schema(parse(), 0)
    assert names(schema) == ENVELOPE
    assert names(part(schema, "event")) == ["order_id", "order_time", "customer_id", "shop_id", "features"]
    assert names(part(part(schema, "event"), "features")) == ["AT_NIGHT", "SPENT"]
    assert names(part(schema, "label")) == ["order_id", "order_time", "shop_id", "returned"]


def test_a_stage_hands_on_fields_of_later_windows() -> None:
    later = TOML.replace('aggregate = "rate"\nfield = "label"', 'aggregate = "sum"\nfield = "amount"')
    schema = stage_schema(parse(toml=later), 0)
    assert "amount" in names(part(schema, "event"))
    assert "label" not in names(schema)


def test_the_last_stage_writes_features() -> None:
    with pytest.raises(ValueError, match="the last one"):
        stage_schema(parse(), 1)
    schema = features_schema(parse())
    assert names(schema) == [
        "event_id",
        "key",
        "event_time",
        "order_time",
        "late",
        "source_partition",
        "source_offset",
        "input_partition",
        "input_offset",
        "feature_hash",
        "features",
    ]
    vector = part(schema, "features")
    assert names(vector) == ["AT_NIGHT", "SPENT", "RISK"]
    assert {field["type"] for field in vector["fields"]} == {"double"}
    assert vector["fields"][2]["doc"] == "rate of label over 7d of the shop, 2d ago"


def test_a_new_feature_is_a_compatible_change() -> None:
    new = TOML.replace("[model]", '[[feature]]\nname = "LOG"\nexpression = "log1p(amount)"\n\n[model]')
    for old_schema, new_schema in zip(every_schema(parse()), every_schema(parse(toml=new)), strict=True):
        assert obstacles(new_schema, old_schema) == []


def test_every_call_gives_a_schema_of_its_own() -> None:
    pipeline = parse()
    accepted_schema(pipeline)["fields"][5]["type"][1]["fields"].clear()
    assert part(accepted_schema(pipeline), "event") == parse().event.avro


def test_names_with_a_hyphen_make_valid_namespaces() -> None:
    pipeline = parse().model_copy(update={"name": "my-shop"})
    for schema in every_schema(pipeline):
        assert lint_text(json.dumps(schema), "x") == []


def test_every_topic_has_its_subject_and_level() -> None:
    found = {subject.name: subject.level for subject in subjects_of(parse())}
    assert found["shop.events.v1-value"] == "BACKWARD_TRANSITIVE"
    assert found["shop.labels.v1-value"] == "BACKWARD_TRANSITIVE"
    assert found["shop.features-shop.v1-value"] == "BACKWARD_TRANSITIVE"
    assert found["shop.predictions.v1-value"] == "FULL_TRANSITIVE"
    assert len(found) == 20


def test_without_labels_there_is_no_subject_for_them() -> None:
    without = parse().model_copy(update={"label": None})
    names_left = {subject.name for subject in subjects_of(without)}
    assert not {f"shop.{topic}.v1-value" for topic in ("labels", "joined", "labeled")} & names_left
    assert "label" not in names(accepted_schema(without))
