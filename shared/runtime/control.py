"""What replays say on `replays.v1`, folded: is one open, and how far has each source come?

A replay announces itself before its first record, repeats its word as a heartbeat, and closes. Each word
says: everything before `order_time` has been sent, and lies before `next_offsets`. So a reader that stands at
or behind such an offset has come to that time, even if the partition got nothing of the replay. A replay that
falls silent for longer than its lease counts as dead; what it had said stays true.

A replay in lockstep says STEP where others say OPEN, and REST once a step has gone through every service:
then models change places, and nothing else happens until the next STEP.
"""

import io
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from fastavro import parse_schema, schemaless_reader, schemaless_writer

from schemas import platform_schema
from shared.runtime.polled import Polled

OPEN, CLOSED, STEP, REST = "OPEN", "CLOSED", "STEP", "REST"
_FRAME = 5
_MOST_MARKS = 20_000


@dataclass(frozen=True, slots=True)
class ReplayWord:
    """One control record; `said_ms` is its Kafka timestamp (when the replay said it, by the clock)."""

    id: str
    state: str
    order_time: int
    lease_ms: int
    next_offsets: Mapping[str, int]
    said_ms: int = 0

    def encode(self, prefix: bytes) -> bytes:
        """The record's value behind the frame `prefix`."""
        buffer = io.BytesIO()
        buffer.write(prefix)
        record = {
            "id": self.id,
            "state": self.state,
            "order_time": self.order_time,
            "lease_ms": self.lease_ms,
            "next_offsets": dict(self.next_offsets),
        }
        schemaless_writer(buffer, _schema(), record)
        return buffer.getvalue()

    @staticmethod
    def decode(value: bytes, said_ms: int) -> "ReplayWord | None":
        """The word in a record's value; None where it is not one."""
        buffer = io.BytesIO(value[_FRAME:])
        try:
            found: Any = schemaless_reader(buffer, _schema(), None)
        except (EOFError, IndexError, ValueError, OverflowError, KeyError, TypeError):
            return None
        if len(value) < _FRAME or value[0] != 0 or buffer.read(1) or not isinstance(found, dict):
            return None
        time: int = round(found["order_time"].timestamp() * 1_000)
        return ReplayWord(
            found["id"], found["state"], time, found["lease_ms"], found["next_offsets"], said_ms
        )


@cache
def _schema() -> Any:
    return parse_schema(platform_schema("replay"))


def source_name(topic: str, partition: int) -> str:
    """How `next_offsets` names a partition.

    >>> source_name("fraud.events.v1", 3)
    'fraud.events.v1/3'
    """
    return f"{topic}/{partition}"


@dataclass(slots=True)
class _Marks:
    """What was said of one source: offsets and times, both increasing.

    All of it is kept, since a reader that starts again asks for an earlier position; when there is too much,
    every second word is dropped, which only makes the marks coarser.
    """

    offsets: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)

    def say(self, offset: int, time: int) -> None:
        while self.offsets and self.offsets[-1] >= offset and self.times[-1] <= time:
            self.offsets.pop()
            self.times.pop()
        if not self.offsets or self.times[-1] < time:
            self.offsets.append(offset)
            self.times.append(time)
        if len(self.offsets) > _MOST_MARKS:
            # The newest word stays whatever the parity: nothing comes after the last replay's end.
            self.offsets = self.offsets[-1::-2][::-1]
            self.times = self.times[-1::-2][::-1]

    def at(self, position: int) -> int | None:
        found = bisect_right(self.offsets, position)
        return self.times[found - 1] if found else None


class Replays:
    """The fold over the control records of one pipeline; shared by all units of a worker.

    >>> replays = Replays()
    >>> replays.take([ReplayWord("r", OPEN, 500, 1_000, {"e/0": 7}, said_ms=10_000)])
    >>> replays.open(10_900), replays.open(11_001), replays.mark_for("e", 0, 6), replays.mark_for("e", 0, 7)
    (True, False, None, 500)
    """

    def __init__(self) -> None:
        self._open: dict[str, ReplayWord] = {}
        self._marks: dict[str, _Marks] = {}
        self.ignored = 0
        """Records that were no control records; they change nothing and are counted."""

    def step(self, polled: Polled) -> None:
        """Take what was read from `replays.v1`; anything that is no control record is counted and ignored."""
        values = polled.values.to_list()
        words = []
        for row, value in enumerate(values):
            word = None
            if not polled.value_null[row]:
                word = ReplayWord.decode(value, int(polled.timestamps[row]))
            if word is None:
                self.ignored += 1
            else:
                words.append(word)
        self.take(words)

    def take(self, words: Sequence[ReplayWord]) -> None:
        """Fold control records in the order of the log."""
        for word in words:
            if word.state == CLOSED:
                self._open.pop(word.id, None)
            else:
                self._open[word.id] = word
            for source, offset in word.next_offsets.items():
                self._marks.setdefault(source, _Marks()).say(offset, word.order_time)

    def open(self, now_ms: int) -> bool:
        """Whether a replay is under way whose lease has not run out by `now_ms`."""
        return any(now_ms - word.said_ms <= word.lease_ms for word in self._open.values())

    def stepping(self, now_ms: int) -> bool:
        """Whether a replay in lockstep is within a step: what is decided meanwhile takes effect behind it.

        >>> replays = Replays()
        >>> replays.take([ReplayWord("r", STEP, 500, 1_000, {}, said_ms=10_000)])
        >>> replays.stepping(10_900), replays.open(10_900), replays.stepping(11_001)
        (True, True, False)
        >>> replays.take([ReplayWord("r", REST, 500, 1_000, {}, said_ms=10_900)])
        >>> replays.stepping(10_901), replays.open(10_901)
        (False, True)
        """
        return any(
            word.state == STEP and now_ms - word.said_ms <= word.lease_ms for word in self._open.values()
        )

    def mark_for(self, topic: str, partition: int, position: int) -> int | None:
        """The order time to which a reader at `position` (next offset) has come; None if nothing is said."""
        marks = self._marks.get(source_name(topic, partition))
        return None if marks is None else marks.at(position)
