"""Topics in memory, and a unit that reads them in any cut and can be killed between any two commits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from schemas import platform_schema
from services.controller.core.book import Rules
from services.controller.core.controller import Controller
from services.controller.core.records import Command, Score, Word
from services.controller.core.state import Entry, rebuild
from services.controller.reading import entry_of, rows_of
from services.controller.unit import ControllerUnit, Inputs
from services.controller.writing import Outlet
from shared.codec.batch import Batch, Strings
from shared.codec.frame import frame_prefix, split_frames
from shared.models.announcement import Announcement, announcements
from shared.runtime.control import ReplayWord
from shared.runtime.polled import Polled
from shared.runtime.tables import Table
from shared.runtime.unit import Arrays, DeadLetter
from tests.unit.controller.makers import FINGERPRINT, MODEL, digest_of

TABLES = {
    name: Table.of(f"p.{name}.v1", number, platform_schema(schema))
    for number, (name, schema) in enumerate(
        [("commands", "command"), ("scores", "score"), ("audit", "audit"), ("models", "model")], start=1
    )
}
REPLAYS = "p.replays.v1"
INPUTS = Inputs(TABLES["commands"], TABLES["scores"], TABLES["audit"], REPLAYS)
OUTLET = Outlet(TABLES["models"], TABLES["audit"], MODEL, FINGERPRINT, lambda said: said)


def _encode(table: Table, record: Mapping[str, Any]) -> bytes:
    columns: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, str | bytes):
            columns[name] = Strings.of([value.encode() if isinstance(value, str) else value])
        else:
            columns[name] = np.array([value], np.float64 if isinstance(value, float) else np.int64)
    return table.write(Batch.of(columns)).to_list()[0]


def command_record(said: Command) -> bytes:
    import json

    record = {
        name: getattr(said, name)
        for name in ("id", "kind", "model_name", "model_version", "model_digest", "expected_sequence")
    }
    more = {"actor": said.actor, "reason": said.reason, "evidence": said.evidence, "at": said.at}
    return _encode(
        TABLES["commands"], record | more | {"parameters": json.dumps(said.parameters, ensure_ascii=False)}
    )


def score_record(said: Score) -> bytes:
    names = ("sequence", "order_time", "role", "slice", "metric", "value", "rows", "total", "window", "state")
    record = {name: getattr(said, name) for name in names}
    more = {"model_version": said.version, "model_digest": "", "coverage": 1.0}
    return _encode(TABLES["scores"], record | more)


def word_record(said: Word) -> bytes:
    record = {
        "kind": said.kind,
        "model_name": MODEL,
        "model_version": said.version,
        "model_digest": said.digest,
        "registry_offset": 0,
        "actor": said.actor,
        "reason": said.reason,
        "detail": said.detail,
        "at": said.at,
        "previous": "",
        "state": "",
        "evidence": "",
        "labeled_sequence": -1,
        "command_offset": -1,
    }
    return _encode(TABLES["audit"], record)


def replay_record(state: str, name: str = "r") -> bytes:
    return ReplayWord(name, state, 0, 10_000, {}).encode(frame_prefix(9))


@dataclass
class Log:
    """One partition: values; None is a tombstone."""

    values: list[bytes | None] = field(default_factory=list)

    def polled(self, topic: str, begin: int, end: int) -> Polled:
        rows = self.values[begin:end]
        null = np.array([value is None for value in rows], np.bool_)
        keys = Strings.of([b"k"] * len(rows))
        offsets = np.arange(begin, begin + len(rows), dtype=np.int64)
        values = Strings.of([value or b"" for value in rows])
        return Polled(topic, 0, keys, ~np.ones(len(rows), np.bool_), values, null, offsets, 1_000 + offsets)


class World:
    """Topics, what is committed, and one unit."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.logs = {topic: Log() for topic in (*INPUTS.topics, REPLAYS, TABLES["models"].topic)}
        self.committed = dict.fromkeys((*INPUTS.topics, REPLAYS), 0)
        self.read = dict(self.committed)
        self.dead: list[DeadLetter] = []
        self.saved: tuple[dict[str, int], Arrays] | None = None
        self.unit = self._unit()

    def _unit(self) -> ControllerUnit:
        state = rebuild(self.entries(), [])
        unit = ControllerUnit(INPUTS, OUTLET, Controller(self.rules, state), digest_of(1), lambda *_: None)
        unit.at_end(REPLAYS, True)
        return unit

    def kill(self) -> None:
        """Lose everything but the log, the commits and the snapshot; come back."""
        self.unit = self._unit()
        begin = dict.fromkeys(self.committed, 0)
        if self.saved is not None:
            begin, arrays = dict(self.saved[0]), self.saved[1]
            self.unit.restore(arrays)
        for topic, end in self.committed.items():
            for at in range(begin[topic], end):
                self.unit.replay([self.logs[topic].polled(topic, at, at + 1)])
        self.read = dict(self.committed)

    def save(self) -> None:
        self.saved = dict(self.committed), self.unit.snapshot()

    def step(self, rows: Mapping[str, int] | None = None, now_ms: int = 1_000, commit: bool = True) -> None:
        """Read so many rows a topic (all, without `rows`) and write what follows; with `commit` off, lose it."""
        polled = []
        for topic, begin in self.read.items():
            end = len(self.logs[topic].values) if rows is None else begin + rows.get(topic, 0)
            part = self.logs[topic].polled(topic, begin, end)
            if len(part):
                polled.append(part)
                self.read[topic] = begin + len(part)
        emission = self.unit.step(polled, now_ms)
        if not commit:
            self.kill()
            return
        for out in emission.outs:
            self.logs[out.topic].values += out.values.to_list()
        self.dead += emission.dead
        for topic, at in emission.next_offsets.items():
            assert at >= self.committed[topic]
            self.committed[topic] = at

    def settle(self) -> None:
        """Read to the ends, own records included."""
        self.step()
        self.step()

    def tell(self, *said: Command | Score | Word) -> None:
        """Append to the inputs."""
        for each in said:
            if isinstance(each, Command):
                self.logs[TABLES["commands"].topic].values.append(command_record(each))
            elif isinstance(each, Score):
                self.logs[TABLES["scores"].topic].values.append(score_record(each))
            else:
                self.logs[TABLES["audit"].topic].values.append(word_record(each))

    def entries(self) -> list[Entry]:
        """Every decision on the log."""
        topic = TABLES["audit"].topic
        polled = self.logs[topic].polled(topic, 0, len(self.logs[topic].values))
        found = (entry_of(read, MODEL) for read in rows_of(TABLES["audit"], polled))
        return [entry for entry in found if entry is not None]

    def announced(self) -> Sequence[Announcement]:
        """Everything on models.v1."""
        topic = TABLES["models"].topic
        values = [value for value in self.logs[topic].values if value is not None]
        if not values:
            return []
        _, payload, _ = split_frames(Strings.of(values))
        return announcements(TABLES["models"].program.decode(payload).batch)
