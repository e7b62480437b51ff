"""A unit's state again: the newest snapshot, then the input up to the committed offset, in silence."""

from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaException, TopicPartition

from shared.errors import Fatal, Retry
from shared.kafka.reader import bounds, open_reader
from shared.kafka.unreadable import read_past
from shared.runtime.snapshots import SnapshotStore
from shared.runtime.stage import Stage
from shared.runtime.unit import Unit
from shared.settings import KafkaSettings


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a group goes on in one partition number, by topic; `new` topics have no commit yet."""

    next_offsets: dict[str, int]
    new: frozenset[str]


def standing(consumer: Consumer, topics: tuple[str, ...], number: int) -> Standing:
    """What the group has committed for partition `number` of each topic; the topic's beginning where nothing.

    The consumer reads committed records only, so the broker waits for transactions under way.

    Raises:
        Fatal: the topic no longer holds what was committed: records were deleted before they were read.
        Retry: the broker did not say.
    """
    places = [TopicPartition(topic, number) for topic in topics]
    try:
        found = consumer.committed(places, timeout=30.0)
    except KafkaException as error:
        raise Retry(f"no committed offsets of partition {number}: {error.args[0]}") from error
    for place in found:
        if place.error is not None:
            raise Retry(f"no committed offset of {place.topic}/{number}: {place.error}")
    lows = {place.topic: bounds(consumer, place.topic, number)[0] for place in found}
    for place in found:
        if 0 <= place.offset < lows[place.topic]:
            raise Fatal(
                f"{place.topic}/{number} begins at offset {lows[place.topic]}, "
                f"the group stands at {place.offset}: "
                "records were deleted before they were read; keep the topic longer, and reset the group's offsets "
                "if those records may be lost"
            )
    new = frozenset(place.topic for place in found if place.offset < 0)
    return Standing({p.topic: lows[p.topic] if p.topic in new else p.offset for p in found}, new)


def recover(
    stage: Stage,
    number: int,
    place: Standing,
    store: SnapshotStore,
    settings: KafkaSettings,
    ids: Mapping[str, str],
) -> Unit:
    """The unit as it was when the group's offsets were committed; `ids` are those of the input topics.

    Raises:
        Fatal: the records between snapshot and committed offset are gone from the topic.
    """
    unit = stage.make_unit(number)
    committed = place.next_offsets
    if stage.stateless or len(place.new) == len(stage.inputs):
        return unit
    snapshot = store.newest(number, committed, ids)
    at = {topic: committed[topic] if topic in place.new else 0 for topic in stage.inputs}
    if snapshot is not None:
        unit.restore(snapshot.arrays)
        at |= snapshot.next_offsets
    ranges = {(topic, number): (at[topic], committed[topic]) for topic in stage.inputs}
    reader = open_reader(settings)
    try:
        for (topic, _), (start, end) in ranges.items():
            low, _high = bounds(reader, topic, number)
            if start < low and start < end:
                raise Fatal(
                    f"{topic}/{number} begins at offset {low}, "
                    f"the state of {stage.name} needs it from {start}; "
                    "keep the topic longer than the snapshots are apart, or reset the consumer group"
                )
    finally:
        reader.close()
    for polled in read_past(settings, ranges, stage.reads):
        unit.replay([polled])
    return unit
