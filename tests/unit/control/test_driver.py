"""The parts of the Faust runtime that need no broker."""

import ssl
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from faust.types import TP
from pydantic import SecretStr

from shared.control.app import credentials
from shared.control.driver import AllToOne, CommittedConsumer
from shared.control.loop import _runs, to_polled
from shared.errors import Refused
from shared.settings import KafkaSettings


class Cluster:
    """Two partitions of any topic but one."""

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return None if topic == "gone" else {1, 0}


def members(*names: str) -> dict[str, ConsumerProtocolMemberMetadata]:
    return {name: AllToOne.metadata(["b", "a", "gone"]) for name in names}


def test_one_member_has_everything() -> None:
    given = AllToOne.assign(Cluster(), members("0001-x", "0000-z", "0002-a"))
    assert given["0000-z"].assignment == [("a", [0, 1]), ("b", [0, 1]), ("gone", [])]
    assert given["0001-x"].assignment == given["0002-a"].assignment == []


def bare() -> Any:
    """A consumer with its bookkeeping alone."""
    consumer = object.__new__(CommittedConsumer)
    consumer._done = {}
    consumer._committed_offset = {TP("t", 0): 5}
    return consumer


def test_what_is_committed_is_what_is_done() -> None:
    consumer = bare()
    place = TP("t", 0)
    assert list(consumer._filter_tps_with_pending_acks()) == []
    consumer.done("t", 0, 5)
    assert consumer._filter_committable_offsets([place]) == {}
    consumer.done("t", 0, 900)
    assert consumer._filter_committable_offsets(consumer._filter_tps_with_pending_acks()) == {place: 900}
    assert list(consumer._filter_tps_with_pending_acks({"other"})) == []


def event(offset: int, key: bytes | None = b"k", value: bytes | None = b"v", partition: int = 0) -> Any:
    message = SimpleNamespace(
        topic="t",
        partition=partition,
        tp=TP("t", partition),
        offset=offset,
        key=key,
        value=value,
        timestamp=1.0005,
    )
    return SimpleNamespace(message=message)


def test_events_become_columns() -> None:
    polled = to_polled([event(7), event(9, None, None)])
    assert (polled.topic, polled.partition, polled.offsets.tolist()) == ("t", 0, [7, 9])
    assert polled.keys.to_list() == [b"k", b""]
    assert polled.key_null.tolist() == polled.value_null.tolist() == [False, True]
    assert polled.timestamps.tolist() == [1_000, 1_000] or polled.timestamps.tolist() == [1_001, 1_001]
    assert polled.timestamps.dtype == np.int64


def test_a_batch_is_cut_where_the_group_steps_back_or_the_partition_changes() -> None:
    events = deque([event(1), event(2), event(2), event(3, partition=1), event(4, partition=1)])
    cut = [[each.message.offset for each in run] for run in _runs(list(events))]
    assert cut == [[1, 2], [2], [3, 4]]


def test_an_open_broker_needs_no_credentials() -> None:
    assert credentials(KafkaSettings()) is None


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_name_and_a_password_are_passed_on(mechanism: Any) -> None:
    settings = KafkaSettings(
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism=mechanism,
        sasl_username="mill",
        sasl_password=SecretStr("secret"),
    )
    given: Any = credentials(settings)
    assert (given.protocol.value, given.mechanism.value) == ("SASL_PLAINTEXT", mechanism)
    assert (given.username, given.password) == ("mill", "secret")
    assert "secret" not in repr(given)


def test_tls_checks_the_broker() -> None:
    given: Any = credentials(KafkaSettings(security_protocol="SASL_SSL", sasl_mechanism="PLAIN"))
    assert given.protocol.value == "SASL_SSL"
    assert given.ssl_context.verify_mode is ssl.CERT_REQUIRED
    assert given.ssl_context.check_hostname


def test_authorities_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    settings = KafkaSettings(security_protocol="SSL", ssl_ca_location=tmp_path / "none.pem")
    with pytest.raises(Refused, match=r"none\.pem"):
        credentials(settings)
