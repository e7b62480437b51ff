"""A unit's state again: the newest snapshot, then the input up to the committed offset, in silence."""

from confluent_kafka import Consumer, KafkaException, TopicPartition

from shared.errors import Fatal, Retry
from shared.kafka.reader import bounds, open_reader
from shared.kafka.unreadable import read_past
from shared.runtime.snapshots import SnapshotStore
from shared.runtime.stage import Stage
from shared.runtime.unit import Unit
from shared.settings import KafkaSettings


def committed_offsets(consumer: Consumer, topics: tuple[str, ...], number: int) -> dict[str, int]:
    """What the group has committed for partition `number` of each topic; 0 where nothing.

    The consumer reads committed records only, so the broker waits for transactions under way.
    """
    places = [TopicPartition(topic, number) for topic in topics]
    try:
        found = consumer.committed(places, timeout=30.0)
    except KafkaException as error:
        raise Retry(f"no committed offsets of partition {number}: {error.args[0]}") from error
    for place in found:
        if place.error is not None:
            raise Retry(f"no committed offset of {place.topic}/{number}: {place.error}")
    return {place.topic: max(0, place.offset) for place in found}


def recover(
    stage: Stage, number: int, committed: dict[str, int], store: SnapshotStore, settings: KafkaSettings
) -> Unit:
    """The unit as it was when `committed` was committed.

    Raises:
        Fatal: the records between snapshot and committed offset are gone from the topic.
    """
    unit = stage.make_unit(number)
    if stage.stateless or not any(committed.values()):
        return unit
    snapshot = store.newest(number, committed)
    at = dict.fromkeys(stage.inputs, 0)
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
    for polled in read_past(settings, ranges, stage.read_headers):
        unit.replay([polled])
    return unit
