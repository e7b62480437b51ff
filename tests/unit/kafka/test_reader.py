"""Offsets are asked for until a partition has a leader, and no longer."""

from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from shared.errors import Retry
from shared.kafka import reader


class Young:
    """A client whose broker answers with an error so many times, and then with offsets."""

    def __init__(self, code: int, times: int) -> None:
        self.code, self.left = code, times

    def get_watermark_offsets(self, place: TopicPartition, timeout: float) -> tuple[int, int]:
        assert place.topic == "shop.events.v1"
        assert timeout > 0
        self.left -= 1
        if self.left >= 0:
            raise KafkaException(KafkaError(self.code))
        return 3, 8


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "LEADER_S", 0.2)


@pytest.mark.parametrize("code", [KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE])
def test_a_partition_without_a_leader_is_waited_for(code: int) -> None:
    young = Young(code, 3)
    assert reader.bounds(cast("Consumer", young), "shop.events.v1", 0) == (3, 8)
    with pytest.raises(Retry, match="no offsets of"):
        reader.bounds(cast("Consumer", Young(code, 10**6)), "shop.events.v1", 0)


def test_nothing_else_is() -> None:
    young = Young(KafkaError.UNKNOWN_TOPIC_OR_PART, 1)
    with pytest.raises(Retry):
        reader.bounds(cast("Consumer", young), "shop.events.v1", 0)
    assert young.left == 0
