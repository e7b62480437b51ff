"""Which schema each topic of a pipeline carries, and how it may change."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import schemas
from shared import topics
from shared.contracts.compat import Level
from shared.contracts.generated import (
    accepted_schema,
    features_schema,
    joined_schema,
    labeled_schema,
    stage_schema,
)
from shared.contracts.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Subject:
    """A topic on the broker, its schema, and the compatibility that the registry enforces."""

    topic: str
    schema: dict[str, Any]
    level: Level

    @property
    def name(self) -> str:
        """The subject in the registry."""
        return f"{self.topic}-value"


def subjects_of(pipeline: Pipeline) -> Iterator[Subject]:
    """Every topic of the pipeline with its schema; labels are left out where there are none."""
    for topic in topics.ALL:
        schema = _schema(pipeline, topic.schema)
        if schema is not None:
            level: Level = (
                "FULL_TRANSITIVE" if topic.schema.startswith("platform/") else "BACKWARD_TRANSITIVE"
            )
            yield Subject(topic.of(pipeline.name), schema, level)
    for stage, following in enumerate(pipeline.entities[1:]):
        topic = topics.stage_topic(following.name)
        yield Subject(topic.of(pipeline.name), stage_schema(pipeline, stage), "BACKWARD_TRANSITIVE")


def _schema(pipeline: Pipeline, name: str) -> dict[str, Any] | None:
    family, _, which = name.partition("/")
    match family, which:
        case "pipeline", "event":
            return pipeline.event.avro
        case "pipeline", "label":
            return pipeline.label.avro if pipeline.label is not None else None
        case "generated", "accepted":
            return accepted_schema(pipeline)
        case "generated", "features":
            return features_schema(pipeline)
        case "generated", "joined":
            return joined_schema(pipeline) if pipeline.label is not None else None
        case "generated", "labeled":
            return labeled_schema(pipeline) if pipeline.label is not None else None
        case "platform", _:
            return schemas.platform_schema(which)
        case _:
            raise ValueError(f"no rule gives the schema {name}")
