"""Laws of all contracts: every topic has a schema, every schema passes the lint, every pipeline loads."""

import csv
import gzip
import json
from pathlib import Path

import fastavro
import pytest

import schemas
from shared import topics
from shared.contracts.lint import lint_text
from shared.contracts.pipeline import find_pipeline, load_pipeline
from shared.contracts.released import check_folder
from shared.contracts.subjects import subjects_of

DATA = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.mark.parametrize("name", schemas.platform_names())
def test_platform_schema_passes_the_lint(name: str) -> None:
    text = (schemas.FOLDER / "platform" / f"{name}.avsc").read_text(encoding="utf-8")
    assert lint_text(text, name) == []
    fastavro.parse_schema(json.loads(text))


@pytest.mark.parametrize("name", ["platform", *schemas.pipeline_names()])
def test_folder_passes_the_check(name: str) -> None:
    assert [str(problem) for problem in check_folder(schemas.FOLDER / name)] == []


@pytest.mark.parametrize("name", schemas.pipeline_names())
def test_every_topic_of_every_pipeline_has_a_schema(name: str) -> None:
    pipeline = load_pipeline(schemas.FOLDER / name)
    found = {subject.topic for subject in subjects_of(pipeline)}
    assert {topic.of(name) for topic in topics.ALL} <= found
    # Predictions and shadows are told apart by their topic alone.
    alike = 1
    assert len({json.dumps(subject.schema) for subject in subjects_of(pipeline)}) == len(found) - alike


def test_platform_schema_gives_a_copy_of_its_own() -> None:
    schemas.platform_schema("metric")["fields"].clear()
    assert schemas.platform_schema("metric")["fields"]


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the demonstration data in ../shared/data")
def test_fraud_has_the_published_columns() -> None:
    with gzip.open(DATA / "fraud_features_2018-04-01_07.csv.gz", "rt") as file:
        published = next(csv.reader(file))[1:]
    names = load_pipeline(find_pipeline("fraud")).feature_names
    assert names[0] == "TX_AMOUNT"
    assert list(names[1:]) == published


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the demonstration data in ../shared/data")
@pytest.mark.parametrize(
    ("name", "file"), [("fraud", "fraud_raw_2018-04_07.csv.gz"), ("elec2", "elec2.csv.gz")]
)
def test_sources_name_columns_that_exist(name: str, file: str) -> None:
    with gzip.open(DATA / file, "rt") as opened:
        columns = set(next(csv.reader(opened)))
    source = load_pipeline(find_pipeline(name)).source
    assert source is not None
    cells = [*source.event.values(), *source.label.values()]
    assert {cell.text for cell in cells if cell.kind == "column"} <= columns
    assert {column for column in (source.time, source.order) if column is not None} <= columns
