"""A broker that forgets producers, as Kafka does those whose records carry old times: no record is lost to it."""

from typing import Any

import polars as pl
import pytest
from confluent_kafka import KafkaError, Message, Producer

from services.cli import replaying
from services.cli.replaying import Replay, replay_config
from services.cli.script import write_script
from shared.contracts.pipeline import find_pipeline, load_pipeline
from shared.errors import Retry
from shared.settings import KafkaSettings
from shared.topics import EVENTS, LABELS, REPLAYS
from tests.chaos.forgetful import ForgetfulBroker

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]

FRAUD = load_pipeline(find_pipeline("fraud"))
ROWS = 50
IN_2018 = 1_522_540_800_000


def kafka(broker: ForgetfulBroker) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=broker.address)


def send(config: dict[str, Any], rows: int) -> tuple[int, list[int | None], list[KafkaError]]:
    """Send records one a request; how many were left in the queue, the offsets told, the errors told."""
    offsets: list[int | None] = []
    errors: list[KafkaError] = []

    def told(error: KafkaError | None, message: Message) -> None:
        offsets.append(message.offset())
        if error is not None:
            errors.append(error)

    producer = Producer({**config, "batch.num.messages": 1, "log_level": 0})
    for row in range(rows):
        producer.produce("events", b"%d" % row, None, 0, told, None, IN_2018 + row)
    return producer.flush(60.0), offsets, errors


def test_no_record_of_a_replay_passes_the_one_before_it() -> None:
    with ForgetfulBroker(patience_s=1.0, refusing="events") as broker:
        left, offsets, errors = send(replay_config(kafka(broker)), ROWS)
        assert (left, errors) == (0, [])
        assert not broker.passed
        assert broker.kept["events"] == list(range(ROWS))
        assert offsets == list(range(ROWS))


def test_with_several_requests_under_way_one_is_lost_and_acknowledged() -> None:
    """The negative control: the hazard is there, and the client tells of it by no error."""
    with ForgetfulBroker(patience_s=60.0, refusing="events") as broker:
        config = {**replay_config(kafka(broker)), "max.in.flight.requests.per.connection": 5}
        left, offsets, errors = send(config, ROWS)
        assert (left, errors) == (0, [])
        assert broker.passed
        assert len(offsets) == ROWS
        assert 0 not in broker.kept["events"]
        assert offsets[0] is None


def replay(broker: ForgetfulBroker, rows: int = ROWS) -> Replay:
    frame = pl.DataFrame(
        {
            "TRANSACTION_ID": list(range(rows)),
            "TX_TIME_SECONDS": list(range(rows)),
            "CUSTOMER_ID": ["1"] * rows,
            "TERMINAL_ID": ["7"] * rows,
            "TX_AMOUNT": [1.5] * rows,
            "TX_FRAUD": [0] * rows,
        }
    )
    name = FRAUD.name
    ids = {topic.of(name): number for number, topic in enumerate((EVENTS, LABELS, REPLAYS), 1)}
    return Replay(kafka(broker), FRAUD, ids, write_script(frame, FRAUD, None))


def test_a_replay_believes_no_acknowledgement_without_an_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "ONE_IN_FLIGHT", {"batch.num.messages": 1})
    with ForgetfulBroker(patience_s=60.0, refusing=EVENTS.of(FRAUD.name)) as broker:
        with pytest.raises(Retry, match="without an offset"):
            send_in_chunks(replay(broker), 1)
        assert broker.passed


def test_a_replay_that_is_not_heard_to_the_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with ForgetfulBroker(deaf_after=1) as broker:
        unheard = replay(broker)
        with pytest.raises(Retry, match="did not acknowledge every record"), unheard._announced():
            monkeypatch.setattr(replaying, "FLUSH_S", 0.5)


def test_a_full_queue_is_waited_for() -> None:
    with ForgetfulBroker() as broker:
        send_in_chunks(with_queue_of(10, replay(broker)), 25)
        assert broker.kept[EVENTS.of(FRAUD.name)] == list(range(ROWS))


def test_a_queue_that_stays_full_ends_the_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "FLUSH_S", 0.5)
    with ForgetfulBroker(deaf_after=0) as broker:
        blocked = with_queue_of(10, replay(broker))
        with pytest.raises(Retry, match="no room"):
            blocked._send(0, ROWS)


def test_a_broker_that_is_away_is_told_of_in_the_error_alone(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(replaying, "FLUSH_S", 1.0)
    with ForgetfulBroker() as broker:
        left = replay(broker)
    with pytest.raises(Retry, match=r"not taken the replay's word.*(refused|down).*is it running"):
        left._declare("OPEN")
    assert capfd.readouterr().err == ""


def send_in_chunks(replay: Replay, size: int) -> None:
    with replay._announced():
        for begin in range(0, ROWS, size):
            replay._send(begin, begin + size)


def with_queue_of(records: int, replay: Replay) -> Replay:
    """The same replay with room for so many records in the client."""
    config = replay_config(replay._kafka)
    replay._producer = Producer({**config, "queue.buffering.max.messages": records, "log_level": 3})
    return replay
