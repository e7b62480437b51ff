"""Whether every service of a pipeline has read all that was written: asked of the broker, not of a clock.

One look, in this order: the groups' committed offsets, the ends of their inputs, then the inputs themselves up
to those ends. A group is behind where a committed record stands at or after its offset; an open transaction
counts as records to come. A record that is written while one looks is read after the offsets were, so that
nothing under way can hide between two services. Markers of transactions are no records: offsets have gaps.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from shared.contracts.generated import accepted_schema
from shared.contracts.pipeline import Pipeline
from shared.errors import Refused, Retry
from shared.kafka.columns import to_polled
from shared.kafka.config import client_config
from shared.kafka.reader import bounds, open_reader, partitions_of
from shared.runtime.tables import Table
from shared.settings import KafkaSettings
from shared.topics import ACCEPTED

Place = tuple[str, int]
Beat = Callable[[], None]
ASK_S = 10.0
PAUSE_S = 0.03
LONGEST_PAUSE_S = 0.2
"""A training takes seconds: whoever waits for one leaves the machine to it."""
START_S = 60.0


@dataclass(frozen=True, slots=True)
class Behind:
    """A group that has not read a committed record: its offset and the newest record's."""

    group: str
    topic: str
    partition: int
    offset: int
    newest: int

    def __str__(self) -> str:
        return (
            f"{self.group} stands at offset {self.offset} of {self.topic}/{self.partition}, "
            f"whose newest record is {self.newest}"
        )


def behind(
    committed: Mapping[str, Mapping[Place, int]], newest: Mapping[Place, int], groups: Collection[str]
) -> list[Behind]:
    """The groups among `groups` that have records to read; `newest` holds -1 where there is none.

    >>> behind({"g": {("t", 0): 5}}, {("t", 0): 7}, ["g"])
    [Behind(group='g', topic='t', partition=0, offset=5, newest=7)]
    """
    return [
        Behind(group, place[0], place[1], offset, newest[place])
        for group in groups
        for place, offset in committed[group].items()
        if newest[place] >= offset
    ]


class _Tail:
    """Reads places to their ends: the newest committed record of each, and ingest's word on where it stands."""

    def __init__(self, reader: Consumer, starts: Mapping[Place, int], accepted: Table) -> None:
        self._reader, self._accepted = reader, accepted
        self._reached = dict(starts)
        self.newest = dict.fromkeys(starts, -1)
        self.count = 0
        self.come_to: dict[int, int] = {}
        reader.assign([TopicPartition(topic, number, at) for (topic, number), at in starts.items()])

    def read(self, ends: Mapping[Place, int], deadline: float) -> None:
        """Read up to `ends`; Retry where that does not come by `deadline`."""
        while any(self._reached[place] < end for place, end in ends.items()):
            if time.monotonic() > deadline:
                raise Retry("the broker does not hand out what it holds; is it running?")
            self._take(self._reader.consume(10_000, timeout=0.02))

    def _take(self, messages: Sequence[Message]) -> None:
        said: list[Message] = []
        for message in messages:
            error = message.error()
            place, at = (message.topic() or "", message.partition() or 0), message.offset() or 0
            if error is None:
                self.newest[place] = at
                self._reached[place] = at + 1
                self.count += 1
                if place[0] == self._accepted.topic:
                    said.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._reached[place] = max(self._reached[place], at)
            elif not error.retriable() and error.code() != KafkaError._TRANSPORT:
                raise Retry(f"{place[0]}/{place[1]}: {error}")
        for polled in to_polled(said):
            rows = self._accepted.read(polled)
            times = rows["order_time"].array[rows["progress"].array]
            if times.size:
                self.come_to[polled.partition] = int(times[-1])


class Standstill:
    """Looks at the groups of `services`, which run; `close` lets go of the clients.

    Args:
        kafka: how to reach the broker.
        pipeline: the declaration; its topics exist.
        schema_ids: registered ids by topic name.
        services: names of services as the supervisor plans them, `feedback-join` say.
        start_s: how long they may take to join their groups.
        beat: called until they have.

    Raises:
        Refused: one of them does not run.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        pipeline: Pipeline,
        schema_ids: Mapping[str, int],
        services: Sequence[str],
        start_s: float = START_S,
        beat: Beat = lambda: None,
    ) -> None:
        self._admin = AdminClient(client_config(kafka))
        self._reader = open_reader(kafka, **{"fetch.wait.max.ms": 10})
        self.pipeline = pipeline
        self.groups = [f"millrace.{pipeline.name}.{service}" for service in services]
        try:
            self._inputs = self._find_inputs(time.monotonic() + start_s, beat)
            topic = ACCEPTED.of(pipeline.name)
            accepted = Table.of(topic, schema_ids[topic], accepted_schema(pipeline))
            self._tail = _Tail(self._reader, self._starts(), accepted)
        except BaseException:
            self._reader.close()
            raise

    def close(self) -> None:
        """Let go of the client."""
        self._reader.close()

    def wait(self, groups: Collection[str], come_to: int | None, timeout_s: float, beat: Beat) -> None:
        """Return once two looks in a row found all of `groups` at rest and nothing new in between.

        With `come_to` also every partition of ingest must have come to that order time (milliseconds).

        Raises:
            Retry: that was not so within `timeout_s`; the message says who is behind, and where.
        """
        began = time.monotonic()
        deadline = began + timeout_s
        before = -1
        while True:
            beat()
            waits = self.look(groups, come_to)
            if not waits and self._tail.count == before:
                return
            before = self._tail.count if not waits else -1
            if time.monotonic() > deadline:
                raise Retry(
                    f"{self.pipeline.name} does not come to rest within {timeout_s:.0f} s: "
                    + "; ".join(waits[:3] or ["records still come"])
                )
            waited = time.monotonic() - began
            time.sleep(min(LONGEST_PAUSE_S, max(PAUSE_S, waited / 20)) if waits else PAUSE_S)

    def look(self, groups: Collection[str], come_to: int | None = None) -> list[str]:
        """What keeps `groups` from resting, for people; nothing where all rest."""
        committed = self._committed(groups)
        written = self._ends(IsolationLevel.READ_UNCOMMITTED)
        stable = self._ends(IsolationLevel.READ_COMMITTED)
        self._tail.read(stable, time.monotonic() + ASK_S)
        waits = [str(each) for each in behind(committed, self._tail.newest, groups)]
        waits += [
            f"a transaction on {topic}/{number} is open"
            for (topic, number), end in written.items()
            if stable[topic, number] < end
        ]
        if come_to is not None:
            waits += [
                f"ingest has not come to the step's end on partition {number}"
                for number in range(self.pipeline.partitions)
                if self._tail.come_to.get(number, -1) < come_to
            ]
        return waits

    def end(self, topic: str, partition: int = 0) -> int:
        """The offset behind the last that a committed reader can see, markers included."""
        return bounds(self._reader, topic, partition)[1]

    # What the broker is asked.

    def _find_inputs(self, deadline: float, beat: Beat) -> dict[str, list[Place]]:
        """All partitions of all topics that each group's members were given; waits until it has some."""
        found: dict[str, list[Place]] = {}
        while True:
            beat()
            missing = [group for group in self.groups if group not in found]
            asked = self._admin.describe_consumer_groups(missing, request_timeout=ASK_S) if missing else {}
            for group, told in asked.items():
                try:
                    description = _result(told, f"group {group}")
                except Retry:
                    continue  # a group that nobody has joined yet is not there
                topics = {place.topic for each in description.members for place in _given(each)}
                if topics and description.state == ConsumerGroupState.STABLE:
                    found[group] = [
                        (topic, number)
                        for topic in sorted(topics)
                        for number in partitions_of(self._reader, topic)
                    ]
            missing = [group for group in self.groups if group not in found]
            if not missing:
                return found
            if time.monotonic() > deadline:
                raise Refused(
                    f"{', '.join(group.rpartition('.')[2] for group in missing)} of {self.pipeline.name} "
                    f"does not run; start it with `millrace run {self.pipeline.name}`"
                )
            time.sleep(0.2)

    def _starts(self) -> dict[Place, int]:
        """From where each input is read: the least of the groups' offsets, or the first that is kept."""
        starts: dict[Place, int] = {}
        for places in self._committed(self.groups).values():
            for place, offset in places.items():
                starts[place] = min(offset, starts.get(place, offset))
        return {place: max(at, bounds(self._reader, *place)[0]) for place, at in starts.items()}

    def _committed(self, groups: Collection[str]) -> dict[str, dict[Place, int]]:
        asked = {
            group: self._admin.list_consumer_group_offsets(
                [
                    ConsumerGroupTopicPartitions(
                        group, [TopicPartition(topic, number) for topic, number in self._inputs[group]]
                    )
                ],
                request_timeout=ASK_S,
            )[group]
            for group in groups
        }
        return {
            group: {
                (place.topic, place.partition): max(0, place.offset)
                for place in _result(told, f"offsets of {group}").topic_partitions
            }
            for group, told in asked.items()
        }

    def _ends(self, isolation: IsolationLevel) -> dict[Place, int]:
        places = {place for places in self._inputs.values() for place in places}
        asked = self._admin.list_offsets(
            {TopicPartition(*place): OffsetSpec.latest() for place in places},  # type: ignore[no-untyped-call]
            isolation_level=isolation,
            request_timeout=ASK_S,
        )
        return {
            (place.topic, place.partition): int(_result(told, f"the end of {place.topic}").offset)
            for place, told in asked.items()
        }


def _given(member: Any) -> list[TopicPartition]:
    """The partitions that a group's member was assigned."""
    return list(member.assignment.topic_partitions) if member.assignment is not None else []


def _result(told: Any, what: str) -> Any:
    try:
        return told.result(ASK_S)
    except (KafkaException, TimeoutError) as failure:
        raise Retry(f"the broker does not tell {what}: {failure}") from failure
