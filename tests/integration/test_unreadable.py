"""Batches that the client cannot read, on a real broker: found exactly, and passed without losing a neighbour."""

import time
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from services.stack.endpoints import Endpoints
from shared.kafka.config import client_config
from shared.kafka.reader import UnreadableBatch, open_reader, read_ranges
from shared.kafka.transactions import producer_config
from shared.kafka.unreadable import find_unreadable, read_past
from shared.settings import KafkaSettings, PlatformSettings
from tests.e2e.raw_produce import ZSTD, bomb, produce, record_batch

pytestmark = pytest.mark.integration

# Good records (values by number of bytes) and bombs (number of records), as they lie in the partition.
LOG: list[tuple[str, int, int]] = [
    ("good", 3, 1),
    ("bomb", 1, 0),
    ("bomb", 500, 0),
    ("good", 1, 1),
    ("bomb", 7, 0),
    ("good", 20, 400_000),
    ("bomb", 4_000, 0),
    ("bomb", 2, 0),
]


@pytest.fixture(scope="module")
def kafka(stack: Endpoints) -> KafkaSettings:
    settings = PlatformSettings().kafka
    assert settings.bootstrap_servers == stack.bootstrap_servers
    return settings


@pytest.fixture(scope="module")
def topic(kafka: KafkaSettings) -> Iterator[str]:
    admin = AdminClient(client_config(kafka))
    name = f"unreadable-{uuid.uuid4().hex[:8]}"
    admin.create_topics([NewTopic(name, 1, 1)])[name].result()
    producer = Producer(producer_config(kafka, "lz4"))
    for kind, count, size in LOG:
        if kind == "bomb":
            batch = record_batch(bomb(b"key", 300 << 20, count), count, time.time_ns() // 1_000_000, ZSTD)
            produce(kafka.bootstrap_servers, name, 0, batch)
            continue
        for _ in range(count):
            producer.produce(name, bytes(size), b"key", 0)
        assert producer.flush(30.0) == 0
    yield name
    admin.delete_topics([name])[name].result()


def _ranges(kind: str) -> list[tuple[int, int]]:
    found, at = [], 0
    for each, count, _ in LOG:
        if each == kind:
            found.append((at, at + count))
        at += count
    return found


def test_a_batch_is_found_from_any_offset_inside_it(kafka: KafkaSettings, topic: str) -> None:
    for begin, end in _ranges("bomb"):
        for position in {begin, (begin + end) // 2, end - 1}:
            started = time.monotonic()
            found = find_unreadable(kafka, topic, 0, position)
            assert found is not None
            assert (found.first, found.next_offset) == (begin, end)
            assert time.monotonic() - started < 4.0


def test_what_can_be_read_is_not_called_unreadable(kafka: KafkaSettings, topic: str) -> None:
    last = sum(count for _, count, _ in LOG)
    for begin, end in [*_ranges("good"), (last, last)]:
        assert find_unreadable(kafka, topic, 0, begin) is None
        assert find_unreadable(kafka, topic, 0, max(begin, end - 1)) is None


def test_everything_else_is_read_past_them(kafka: KafkaSettings, topic: str) -> None:
    last = sum(count for _, count, _ in LOG)
    parts = read_past(kafka, {(topic, 0): (0, last)})
    offsets = [at for polled in parts for at in polled.offsets.tolist()]
    assert offsets == [at for begin, end in _ranges("good") for at in range(begin, end)]


def test_a_reader_that_must_not_skip_says_where_it_stands(kafka: KafkaSettings, topic: str) -> None:
    reader = open_reader(kafka)
    try:
        with pytest.raises(UnreadableBatch, match=f"{topic}/0"):
            list(read_ranges(reader, {(topic, 0): (0, 4)}))
    finally:
        reader.close()
