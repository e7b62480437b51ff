"""Follows models.v1 in a thread of its own and keeps what the loop shall take: a line-up, and how far it reaches.

The loop goes on with the models it has while others are loaded, and takes new ones between two batches.
"""

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from confluent_kafka import KafkaError, Message, TopicPartition

from services.inference.core.lineup import Failure, Lineup
from services.inference.core.registry import Action
from services.inference.roles import Roles
from shared.codec.batch import Batch
from shared.codec.frame import split_frames
from shared.errors import Retry
from shared.kafka.columns import to_polled
from shared.kafka.reader import open_reader
from shared.models.announcement import Announcement, announcements
from shared.runtime.context import backoff
from shared.runtime.polled import Polled
from shared.runtime.tables import Table
from shared.settings import KafkaSettings

ANNOUNCEMENT_BROKEN = "announcement.broken"


@dataclass(frozen=True, slots=True)
class Taken:
    """What the loop takes at a turn: a line-up where there is a new one, and how much of models.v1 is in effect.

    `offset` is the one behind the last record, markers included; -1 before the topic's end was first reached.
    """

    lineup: Lineup | None
    offset: int


class Desk:
    """Between the two threads: line-ups and their reach go one way, what the loop finds unfit the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready: Lineup | None = None
        self._offset = -1
        self._reports: queue.SimpleQueue[Failure] = queue.SimpleQueue()

    def publish(self, lineup: Lineup) -> None:
        """A line-up for the loop; a newer one replaces one that was not taken."""
        with self._lock:
            self._ready = lineup

    def obeyed(self, offset: int) -> None:
        """All announcements before `offset` are in the line-ups that were published."""
        with self._lock:
            self._offset = offset

    def take(self) -> Taken:
        """What is new to the loop."""
        with self._lock:
            taken, self._ready = Taken(self._ready, self._offset), None
        return taken

    def report(self, failure: Failure) -> None:
        """The loop has found a model unfit."""
        self._reports.put(failure)

    def reports(self) -> Iterator[Failure]:
        """What the loop has reported since."""
        while not self._reports.empty():
            yield self._reports.get()


class Follower:
    """The thread that reads models.v1 and makes `roles` follow it."""

    def __init__(self, kafka: KafkaSettings, table: Table, roles: Roles, desk: Desk) -> None:
        self._kafka, self._table, self._roles, self._desk = kafka, table, roles, desk
        self._next = 0
        self._gathered: list[Action] = []
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Begin to follow."""
        self._roles.waiting = self._hear
        threading.Thread(target=self._run, name="models", daemon=True).start()

    def take(self) -> Taken:
        """What is new to the loop. Raises what the thread died of."""
        if self._failure is not None:
            raise self._failure
        return self._desk.take()

    def _run(self) -> None:
        attempt = 0
        while True:
            try:
                for actions, end in self._actions():
                    self._roles.obey(actions)
                    self._desk.obeyed(end)
                    attempt = 0
            except Retry:
                attempt += 1
                time.sleep(backoff(attempt))
            except BaseException as failure:  # the loop must die of it, not this thread alone
                self._failure = failure
                return

    def _actions(self) -> Iterator[tuple[list[Action], int]]:
        """Batches of actions, each with the offset behind it; the first holds all that was there at the start."""
        # An announcement is obeyed at the topic's end, which the broker tells after this time.
        reader = open_reader(self._kafka, **{"fetch.wait.max.ms": 50})
        try:
            reader.assign([TopicPartition(self._table.topic, 0, self._next)])
            while True:
                self._hear()
                messages = reader.consume(500, timeout=0.1)
                ends = [m.offset() or 0 for m in messages if self._is_end(m)]
                for polled in to_polled([m for m in messages if m.error() is None]):
                    self._gathered += self._fold(polled)
                    self._next = int(polled.offsets[-1]) + 1
                if ends:
                    self._next = max(ends[-1], self._next)
                    gathered, self._gathered = self._gathered, []
                    yield gathered, self._next
        finally:
            reader.close()

    def _is_end(self, message: Message) -> bool:
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise Retry(f"{self._table.topic}: {error}")
        return error is not None

    def _fold(self, polled: Polled) -> list[Action]:
        ids, payload, status = split_frames(polled.values)
        decoded = self._table.program.decode(payload)
        wrong = (status != 0) | (ids != self._table.schema_id) | (decoded.status != 0)
        registry, actions = self._roles.registry, []
        for row in range(len(polled)):
            offset, timestamp = int(polled.offsets[row]), int(polled.timestamps[row])
            if polled.value_null[row]:
                actions.append(registry.step(None, offset, timestamp))
            elif wrong[row]:
                text = f"not a record of schema {self._table.schema_id}; the last good model stays"
                actions.append(Action("ignore", offset, None, ANNOUNCEMENT_BROKEN, text, incident=True))
            else:
                actions.append(registry.step(_one(decoded.batch, row), offset, timestamp))
        return actions

    def _hear(self) -> None:
        for failure in self._desk.reports():
            self._roles.take_out(failure)


def _one(batch: Batch, row: int) -> Announcement:
    return announcements(batch.take(np.array([row])))[0]
