"""Whether a pipeline rests, asked of a real broker: markers, open transactions, groups that are behind or away."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from services.cli.journey import Journey
from services.cli.standstill import Standstill
from services.cli.variants import write_variant
from services.stack.endpoints import Endpoints
from shared.contracts.generated import accepted_schema
from shared.contracts.pipeline import find_pipeline
from shared.errors import Refused, Retry
from shared.kafka.config import client_config
from shared.runtime.tables import ProgressWriter, Table
from shared.topics import ACCEPTED, FEATURES

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
SERVICES = ["features-market", "inference"]


@contextmanager
def member(journey: Journey, service: str, topic: str) -> Iterator[Consumer]:
    """A group's only member, as a service would be."""
    consumer = Consumer(
        {
            **client_config(journey.platform.kafka),
            "group.id": f"millrace.{journey.pipeline.name}.{service}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic])
    deadline = time.monotonic() + 30.0
    while not consumer.assignment() and time.monotonic() < deadline:
        consumer.poll(0.1)
    yield consumer
    consumer.close()


@pytest.fixture
def journey(stack: Endpoints, pipeline_name: str, tmp_path: Path) -> Journey:
    assert stack.bootstrap_servers
    return Journey(write_variant(find_pipeline("elec2"), tmp_path, pipeline_name, partitions=2))


@contextmanager
def looking(journey: Journey) -> Iterator[tuple[Standstill, dict[str, Consumer]]]:
    accepted, features = journey.topic(ACCEPTED.name), journey.topic(FEATURES.name)
    with member(journey, SERVICES[0], accepted) as one, member(journey, SERVICES[1], features) as other:
        found = Standstill(
            journey.platform.kafka, journey.pipeline, journey.schema_ids, SERVICES, start_s=20.0
        )
        try:
            yield found, dict(zip(SERVICES, (one, other), strict=True))
        finally:
            found.close()


def writer(journey: Journey) -> Producer:
    producer = Producer(
        {
            **client_config(journey.platform.kafka),
            "transactional.id": f"{journey.pipeline.name}-test",
            "transaction.timeout.ms": 20_000,
        }
    )
    producer.init_transactions(20.0)
    return producer


def test_markers_are_nothing_to_read_and_an_open_transaction_is_something(journey: Journey) -> None:
    features = journey.topic(FEATURES.name)
    with looking(journey) as (standstill, members):
        assert standstill.look(standstill.groups) == []
        producer = writer(journey)
        producer.begin_transaction()
        producer.produce(features, b"x", partition=0)
        producer.flush(20.0)
        assert standstill.look(standstill.groups) == [f"a transaction on {features}/0 is open"]
        producer.abort_transaction(20.0)
        assert standstill.look(standstill.groups) == []
        producer.begin_transaction()
        producer.produce(features, b"y", partition=1)
        producer.commit_transaction(20.0)
        (said,) = standstill.look(standstill.groups)
        assert "inference stands at offset 0" in said
        assert f"{features}/1, whose newest record is 0" in said
        assert standstill.look([standstill.groups[0]]) == [], "the other group has nothing to read"
        members["inference"].commit(offsets=[TopicPartition(features, 1, 1)], asynchronous=False)
        assert standstill.look(standstill.groups) == [], "the marker behind the record is not waited for"


def test_rest_is_waited_for_and_what_keeps_it_is_named(journey: Journey) -> None:
    features = journey.topic(FEATURES.name)
    with looking(journey) as (standstill, members):
        beats: list[float] = []

        def beat() -> None:
            beats.append(time.monotonic())
            if len(beats) == 20:
                members["inference"].commit(offsets=[TopicPartition(features, 0, 1)], asynchronous=False)

        standstill.wait(standstill.groups, None, 5.0, lambda: None)
        producer = writer(journey)
        producer.begin_transaction()
        producer.produce(features, b"x", partition=0)
        producer.commit_transaction(20.0)
        with pytest.raises(Retry, match=r"inference stands at offset 0 of .*features\.v1/0"):
            standstill.wait(standstill.groups, None, 0.5, lambda: None)
        standstill.wait(standstill.groups, None, 20.0, beat)
        assert len(beats) > 20


def test_a_step_is_not_over_before_ingest_has_come_to_its_end(journey: Journey) -> None:
    topic = journey.topic(ACCEPTED.name)
    table = Table.of(topic, journey.schema_ids[topic], accepted_schema(journey.pipeline))
    with looking(journey) as (standstill, members):
        waits = [f"ingest has not come to the step's end on partition {number}" for number in (0, 1)]
        assert standstill.look(standstill.groups, come_to=500) == waits
        producer = Producer(client_config(journey.platform.kafka))
        for number, time_ms in ((0, 500), (1, 499)):
            out = ProgressWriter(table, number, 1).out(time_ms, False, np.array([number], np.int32))
            producer.produce(topic, out.values.to_list()[0], partition=number)
        producer.flush(20.0)
        members[SERVICES[0]].commit(
            offsets=[TopicPartition(topic, number, 1) for number in (0, 1)], asynchronous=False
        )
        assert standstill.look(standstill.groups, come_to=500) == waits[1:]


def test_a_service_that_does_not_run_is_named(journey: Journey) -> None:
    with (
        member(journey, SERVICES[0], journey.topic(ACCEPTED.name)),
        pytest.raises(Refused, match=f"inference of {journey.pipeline.name} does not run"),
    ):
        Standstill(journey.platform.kafka, journey.pipeline, journey.schema_ids, SERVICES, start_s=1.0)
