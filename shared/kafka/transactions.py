"""One transaction a batch: outputs, dead letters and consumed offsets stand together or not at all.

The order, the same in the manual (docs/guarantees.md):

1. begin the transaction,
2. produce the outputs and the dead letters,
3. add the consumed offsets, with the group's metadata so that a zombie is fenced,
4. commit: the client flushes first and fails if any record failed,
5. only then: views, snapshots, metrics.

Whatever fails between 1 and 4 raises, and the caller throws away producer, consumer and state and starts
again from what is committed: a transaction whose end is unknown is settled by the next producer's
`init_transactions`.
"""

import time
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, Protocol, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from shared.errors import Fatal, Fenced, Retry
from shared.kafka.config import LARGEST_BYTES, client_config
from shared.runtime.unit import Out
from shared.settings import KafkaSettings
from shared.topics import Compression

# Long enough for a broker's restart, short enough that a dead worker does not hold back committed readers.
TRANSACTION_TIMEOUT_MS = 10_000
CALL_TIMEOUT_S = 15.0
FENCED = {
    KafkaError._FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
}
ONE_IN_FLIGHT = {"max.in.flight.requests.per.connection": 1}
"""For records that carry a time of their own, as those of a replay do.

The broker forgets a producer's sequence numbers by the records' timestamps (`producer.id.expiration.ms`): whoever
writes last year's is forgotten at each start and every ten minutes, and then any sequence number is taken. With
several requests under way one that is refused while the broker starts can be passed by the next one, and the
client concludes from that one's acknowledgement that the first was written too. With one under way the worst is a
request written twice.
"""
R = TypeVar("R")


def producer_config(settings: KafkaSettings, compression: Compression) -> dict[str, Any]:
    """What every producer of Millrace has in common: idempotent, Java's partitioner, short waits."""
    return {
        **client_config(settings),
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
        "compression.type": compression,
        "linger.ms": 2,
        "batch.num.messages": 20_000,
        "batch.size": 1_000_000,
        "message.max.bytes": LARGEST_BYTES,
        "queue.buffering.max.messages": 2_000_000,
        "queue.buffering.max.kbytes": 1_048_576,
        "retry.backoff.ms": 10,
        "retry.backoff.max.ms": 100,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 500,
    }


class Sink(Protocol):
    """Where a worker's outputs and consumed offsets go."""

    def commit(self, outs: Sequence[Out], offsets: list[TopicPartition], group: Any) -> None:
        """Write `outs`, then let `offsets` be the group's."""
        ...

    def close(self) -> None:
        """Let go of the client."""
        ...


class TransactionalSink:
    """A transactional producer under a stable id; one instance lives as long as all goes well."""

    def __init__(self, settings: KafkaSettings, transactional_id: str, compression: Compression) -> None:
        self._producer = Producer(
            {
                **producer_config(settings, compression),
                "transactional.id": transactional_id,
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                # A record's own limit must not outlast its transaction's.
                "delivery.timeout.ms": TRANSACTION_TIMEOUT_MS,
            }
        )
        self._call(self._producer.init_transactions, 30.0)

    def commit(self, outs: Sequence[Out], offsets: list[TopicPartition], group: Any) -> None:
        """Write `outs` and `offsets` in one transaction.

        Raises:
            Retry: the transaction does not stand; begin again from the committed offsets with a new sink.
            Fenced: another worker holds the transactional id.
        """
        self._call(self._producer.begin_transaction)
        for out in outs:
            self._call(enqueue, self._producer, out)
        self._call(self._producer.send_offsets_to_transaction, offsets, group, CALL_TIMEOUT_S)
        self._call(self._producer.commit_transaction, CALL_TIMEOUT_S)

    def close(self) -> None:
        """Forget what was not committed and let go of the client's threads."""
        self._producer.purge()
        self._producer.close()

    def _call(self, function: Callable[..., R], *arguments: Any) -> R:
        deadline = time.monotonic() + 2 * CALL_TIMEOUT_S
        while True:
            try:
                return function(*arguments)
            except KafkaException as failure:
                error: KafkaError = failure.args[0]
                if error.code() in FENCED:
                    raise Fenced(f"{error}: another worker has this slot's transactional id") from failure
                if error.fatal() or error.txn_requires_abort() or not error.retriable():
                    raise Retry(f"the transaction does not stand: {error}") from failure
                if time.monotonic() > deadline:
                    raise Retry(f"the coordinator did not answer: {error}") from failure
            except BufferError as failure:
                raise Fatal("one batch is larger than the producer's queue; lower max_records") from failure


class PlainSink:
    """The negative control: outputs first, offsets after, nothing that ties them; a kill between doubles."""

    def __init__(self, settings: KafkaSettings, consumer: Consumer, compression: Compression) -> None:
        self._producer = Producer(producer_config(settings, compression))
        self._consumer = consumer

    def commit(self, outs: Sequence[Out], offsets: list[TopicPartition], group: Any) -> None:  # noqa: ARG002
        """Write `outs`, wait for them, then commit `offsets`."""
        try:
            for out in outs:
                enqueue(self._producer, out)
            if self._producer.flush(CALL_TIMEOUT_S):
                raise Retry("records were not delivered in time")
            if offsets:
                self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as failure:
            raise Retry(str(failure.args[0])) from failure

    def close(self) -> None:
        """Forget what was not delivered."""
        self._producer.purge()
        self._producer.close()


def enqueue(producer: Producer, out: Out) -> None:
    """Hand the records of `out` to the client.

    One call a record: the client's batch call ignores each record's partition (2.16.1), and with the dicts
    that it wants it is slower.
    """
    count = len(out.values)
    keys = repeat(None, count) if out.keys is None else out.keys.to_list()
    places = repeat(-1, count) if out.partitions is None else out.partitions.tolist()
    produce, topic = producer.produce, out.topic
    for value, key, place in zip(out.values.to_list(), keys, places, strict=True):
        produce(topic, value, key, place)
