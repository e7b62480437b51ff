"""Topics of a pipeline: made where missing, refused where they differ from what the pipeline needs."""

from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from shared.contracts.pipeline import Pipeline
from shared.errors import Refused, Retry
from shared.kafka.config import LARGEST_BYTES, client_config
from shared.settings import KafkaSettings
from shared.topics import ALL, Topic, stage_topic

TIMEOUT_S = 30.0


def topics_of(pipeline: Pipeline) -> list[Topic]:
    """All topics of a pipeline, those between its feature stages among them."""
    between = [stage_topic(entity.name) for entity in pipeline.entities[1:]]
    return [*ALL, *between]


def _new_topic(topic: Topic, pipeline: Pipeline, replication: int) -> NewTopic:
    config = {
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "compression.type": "producer",
    }
    if "anyone" not in topic.producers:
        config["max.message.bytes"] = str(LARGEST_BYTES)
    if not topic.compacted:
        config["retention.ms"] = str(topic.retention_ms)
    return NewTopic(
        topic.of(pipeline.name),
        num_partitions=pipeline.partitions if topic.partitioned else 1,
        replication_factor=replication,
        config=config,
    )


def ensure_topics(settings: KafkaSettings, pipeline: Pipeline) -> list[str]:
    """Create the pipeline's missing topics and return their names; idempotent.

    Raises:
        Refused: a topic exists with another number of partitions: keys would be placed elsewhere.
        Retry: the broker did not answer in time.
    """
    admin = AdminClient({**client_config(settings), "socket.timeout.ms": 10_000})
    wanted = topics_of(pipeline)
    existing = _partitions(admin)
    missing = [t for t in wanted if t.of(pipeline.name) not in existing]
    _create(admin, [_new_topic(t, pipeline, settings.replication_factor) for t in missing])
    for topic in wanted:
        found = existing.get(topic.of(pipeline.name))
        expected = pipeline.partitions if topic.partitioned else 1
        if found is not None and found != expected:
            raise Refused(
                f"topic {topic.of(pipeline.name)} has {found} partitions, "
                f"the pipeline declares {expected}; "
                f"set [pipeline] partitions = {found}, or give the pipeline a new name"
            )
    return [t.of(pipeline.name) for t in missing]


def _partitions(admin: AdminClient) -> dict[str, int]:
    try:
        metadata = admin.list_topics(timeout=TIMEOUT_S)
    except KafkaException as error:
        raise Retry(f"the broker did not list its topics: {error.args[0]}; is it running?") from error
    return {name: len(topic.partitions) for name, topic in metadata.topics.items()}


def _create(admin: AdminClient, topics: Sequence[NewTopic]) -> None:
    if not topics:
        return
    for name, future in admin.create_topics(list(topics), operation_timeout=TIMEOUT_S).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue
            raise Retry(f"topic {name} could not be created: {error.args[0]}") from error


def topic_ids(settings: KafkaSettings, names: Sequence[str]) -> dict[str, str]:
    """The broker's own id of each topic; one that is deleted and made again under its name gets another.

    Raises:
        Retry: the broker did not tell in time.
    """
    admin = AdminClient({**client_config(settings), "socket.timeout.ms": 10_000})
    asked = admin.describe_topics(TopicCollection(list(names)), request_timeout=TIMEOUT_S)
    try:
        return {name: str(told.result(TIMEOUT_S).topic_id) for name, told in asked.items()}
    except (KafkaException, TimeoutError) as error:
        raise Retry(f"the broker does not tell the ids of {', '.join(names)}: {error}") from error
