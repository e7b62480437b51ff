"""Faust's Kafka driver with four things changed.

1. It reads committed records only: upstream's isolation follows the processing guarantee, so that an
   at-least-once app would be given what aborted transactions wrote.
2. A group's offsets are those that `CommittedConsumer.done` was told. Upstream counts acknowledgements and the
   gaps between them: it stands still for ever at a gap behind offset 0 (a transaction's marker is one), and it
   acknowledges what it skips in a rebalance.
3. What it dropped while its flow was stopped comes again where nothing is committed yet, too: upstream goes back
   to the committed offset, and where there is none it stays behind what it dropped.
4. One member of the group has every partition: what a service knows is over all its inputs.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import aiokafka
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import (
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)
from faust.transport.drivers import aiokafka as upstream
from faust.types import TP
from mode.threads import WorkerThread

FETCH_WAIT_MS = 100


class AllToOne(AbstractPartitionAssignor):  # type: ignore[misc]
    """Gives every partition to the member whose id sorts first: that of the lowest slot."""

    name = "millrace-one"
    version = 0

    @classmethod
    def assign(
        cls, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """All partitions of all topics to one member, nothing to the others."""
        topics = sorted({topic for member in members.values() for topic in member.subscription})
        everything = [(topic, sorted(cluster.partitions_for_topic(topic) or ())) for topic in topics]
        first = min(members)
        return {
            member: ConsumerProtocolMemberAssignment(cls.version, everything if member == first else [], b"")
            for member in members
        }

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """The topics that this member subscribes to."""
        return ConsumerProtocolMemberMetadata(cls.version, sorted(topics), b"")

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Keeps nothing."""


class _Daemon(WorkerThread):
    """A thread that does not keep a process that has failed from ending."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.daemon = True


class CommittedThread(upstream.AIOKafkaConsumerThread):
    """Owns the aiokafka client, in a thread and loop of its own, so that heartbeats go on during work."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, Worker=_Daemon, **kwargs)

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        conf = self.app.conf
        self._assignor = AllToOne
        return aiokafka.AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            bootstrap_servers=upstream.server_list(transport.url, transport.default_port),
            partition_assignment_strategy=[AllToOne],
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset=conf.consumer_auto_offset_reset,
            max_poll_records=conf.broker_max_poll_records,
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1_000),
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            request_timeout_ms=int(conf.broker_request_timeout * 1_000),
            check_crcs=conf.broker_check_crcs,
            session_timeout_ms=int(conf.broker_session_timeout * 1_000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1_000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1_000),
            **upstream.credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context),
        )

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Go back to what is committed, to the beginning where that is nothing; the committed offsets."""
        found: Mapping[TP, int] = await self.call_thread(self._seek_back)
        return found

    async def _seek_back(self) -> Mapping[TP, int]:
        consumer = self._ensure_consumer()
        committed: Mapping[TP, int] = await consumer.seek_to_committed()
        fresh = [place for place, offset in committed.items() if not offset]
        if fresh:
            for place, offset in (await consumer.beginning_offsets(fresh)).items():
                consumer.seek(place, offset)
        return committed


class CommittedConsumer(upstream.Consumer):
    """Hands out committed records; commits what it is told is done."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._done: dict[TP, int] = {}

    def done(self, topic: str, partition: int, next_offset: int) -> None:
        """Everything before `next_offset` has been worked off: the next commit says so."""
        self._done[TP(topic, partition)] = next_offset

    def _new_consumer_thread(self) -> CommittedThread:
        return CommittedThread(self, loop=self.loop, beacon=self.beacon)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in self._done if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        return self._done.get(tp)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Gaps mean nothing: offsets are told, not counted."""


class CommittedTransport(upstream.Transport):
    """Upstream's transport over that consumer."""

    Consumer: ClassVar[type[CommittedConsumer]] = CommittedConsumer
