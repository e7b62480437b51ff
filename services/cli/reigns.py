"""Which version was champion at a time, by the decisions on audit.v1 and by the predictions of that time.

Order time is when a record came in by its own clock: in a live system the time of day, in a replay the time of the
data. Decisions know it as well as the newest figure did; predictions know it exactly, and name what they obeyed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from schemas import platform_schema
from services.cli.governing import instant
from services.controller.core.state import TRANSITION, Entry
from shared.errors import Refused, Retry
from shared.kafka.columns import to_polled
from shared.kafka.reader import bounds, open_reader
from shared.models.announcement import CHAMPION
from shared.runtime.entry import Start
from shared.runtime.tables import Table
from shared.topics import PREDICTIONS

LOOK_BACK = 500
"""Predictions looked at before a time: the last one by the champion is among them unless canaries answer all."""


@dataclass(frozen=True, slots=True)
class When:
    """A ledger sequence, or an order time in milliseconds."""

    sequence: int | None = None
    order_time: int | None = None


def parse_when(text: str) -> When:
    """A whole number is a sequence of labeled.v1, everything else an ISO time, of UTC where it names no zone.

    >>> parse_when("1200").sequence, parse_when("2018-04-01T00:00:00").order_time
    (1200, 1522540800000)
    """
    if re.fullmatch(r"\d{1,18}", text):
        return When(sequence=int(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(
            f"{text!r} is neither a ledger sequence nor a time such as 2018-04-01T00:00:00Z"
        ) from None
    return When(
        order_time=round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)
    )


def decided(entries: Sequence[Entry], when: When) -> Entry | None:
    """The transition by which the champion of that moment had come, as decisions know the time."""
    found = None
    for entry in entries:
        if entry.kind == TRANSITION and entry.state == CHAMPION:
            if when.sequence is not None:
                before = entry.labeled_sequence <= when.sequence
            else:
                before = int(entry.detail.get("order_time", -1)) <= (when.order_time or 0)
            found = entry if before else found
    return found


@dataclass(frozen=True, slots=True)
class Carried:
    """What one prediction says that it obeyed, and where it stands."""

    version: int
    digest: str
    registry_offset: int
    order_time: int
    partition: int
    offset: int

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "version": self.version,
            "digest": self.digest,
            "registry_offset": self.registry_offset,
            "order_time": instant(self.order_time),
            "partition": self.partition,
            "offset": self.offset,
        }


class Predictions:
    """predictions.v1 by order time: each partition is in order, so that a few reads find a moment."""

    def __init__(self, start: Start) -> None:
        topic = PREDICTIONS.of(start.pipeline.name)
        self._table = Table.of(topic, start.schema_ids[topic], platform_schema("prediction"))
        self._kafka, self._partitions = start.platform.kafka, start.pipeline.partitions

    def carried(self, order_time: int) -> list[Carried]:
        """The last prediction by a champion at or before `order_time` in each partition that has one."""
        reader = open_reader(self._kafka, **{"fetch.wait.max.ms": 10})
        try:
            found = [self._last(reader, number, order_time) for number in range(self._partitions)]
        finally:
            reader.close()
        return [each for each in found if each is not None]

    def _last(self, reader: Consumer, partition: int, order_time: int) -> Carried | None:
        low, high = bounds(reader, self._table.topic, partition)
        first, behind = low, high
        while first < behind:  # `behind` becomes the first offset whose record comes after the time
            middle = (first + behind) // 2
            rows = self._read(reader, partition, middle, 1)
            if rows and rows[0].order_time <= order_time:
                first = rows[0].offset + 1
            else:
                behind = middle
        rows = self._read(reader, partition, max(low, first - LOOK_BACK), LOOK_BACK)
        before = [each for each in rows if each.offset < first and each.order_time <= order_time]
        return before[-1] if before else None

    def _read(self, reader: Consumer, partition: int, begin: int, count: int) -> list[Carried]:
        """Predictions from `begin` on: the first of any role, or up to `count` of them by champions."""
        reader.assign([TopicPartition(self._table.topic, partition, begin)])
        found: list[Carried] = []
        ended, seen = False, 0
        while not ended and seen < count:
            messages = reader.consume(count - seen, timeout=5.0)
            if not messages:
                raise Retry(f"{self._table.topic}/{partition} is not handed out from offset {begin}")
            for message in messages:
                error = message.error()
                ended = ended or error is not None
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise Retry(f"{self._table.topic}: {error}")
            good = [message for message in messages if message.error() is None]
            seen += len(good)
            for polled in to_polled(good):
                rows = self._table.read(polled)
                roles = rows["role"].strings.to_list()
                digests = rows["model_digest"].strings.to_list()
                found += [
                    Carried(version, digest.decode(), registry, order_time, partition, offset)
                    for role, version, digest, registry, order_time, offset in zip(
                        roles,
                        rows["model_version"].array.tolist(),
                        digests,
                        rows["registry_offset"].array.tolist(),
                        rows["order_time"].array.tolist(),
                        polled.offsets.tolist(),
                        strict=True,
                    )
                    if count == 1 or role == CHAMPION.encode()
                ]
        return found


def champion_at(entries: Sequence[Entry], when: When, carried: Sequence[Carried]) -> dict[str, Any]:
    """The champion of that moment: as predictions carry it where there are any, else as it was decided.

    `agrees` says whether the decisions name the same version; near a switch they may not, for they know the time
    only as well as the newest figure did.
    """
    by_audit = decided(entries, when)
    newest = max(carried, key=lambda each: each.order_time, default=None)
    if newest is None and by_audit is None:
        raise Refused("no version served then")
    version = newest.version if newest is not None else (by_audit.version if by_audit else 0)
    return {
        "version": version,
        "digest": newest.digest if newest is not None else (by_audit.digest if by_audit else ""),
        "source": "predictions" if newest is not None else "audit",
        "decided": None if by_audit is None else by_audit.version,
        "decided_sequence": None if by_audit is None else by_audit.sequence,
        "decided_at": None if by_audit is None else instant(by_audit.at),
        "reason": "" if by_audit is None else by_audit.reason,
        "agrees": newest is None or by_audit is None or by_audit.version == version,
        "predictions": [each.row() for each in carried],
    }
