"""runs.v1: what has become of each retraining; asked before anything is done, so that nothing is done twice."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import JsonValue

from services.retrainer.core.steps import ENDS, canonical
from services.retrainer.core.triggers import Trigger
from shared.control.publisher import Publisher
from shared.control.records import Record, Records
from shared.kafka.reader import read_topic
from shared.settings import KafkaSettings


@dataclass(frozen=True, slots=True)
class Step:
    """One record of a run, with its detail as a value."""

    run: str
    step: str
    state: str
    sequence: int
    key: str
    detail: dict[str, Any]


@dataclass(slots=True)
class Past:
    """What runs.v1 says of one run."""

    steps: list[Step] = field(default_factory=list)

    @property
    def ended(self) -> str | None:
        """done, failed or skipped; None while it has not ended."""
        return next((each.step for each in self.steps if each.step in ENDS), None)

    @property
    def begun(self) -> Step | None:
        """The first record, which fixes what the run learns from."""
        return next((each for each in self.steps if each.step == "trigger"), None)

    def of(self, step: str, key: str) -> Step | None:
        """The record that this step was done under this key."""
        return next((s for s in self.steps if s.step == step and s.key == key and s.state != "started"), None)


class Journal(Protocol):
    """Where runs are written down."""

    def refresh(self) -> None:
        """Take note of what has been written since the last time."""
        ...

    def past(self, run: str) -> Past:
        """What is known of a run."""
        ...

    def triggers(self) -> Sequence[Trigger]:
        """Every trigger that was taken up and not skipped as quiet, oldest first."""
        ...

    def proposed(self) -> str:
        """The digest of the newest proposal; empty before the first."""
        ...

    def write(self, step: Step) -> None:
        """Write it down; it stands when this returns."""
        ...


class Book:
    """Steps by run, and the triggers in their order: what every journal keeps in memory."""

    def __init__(self) -> None:
        self._runs: dict[str, Past] = {}
        self._triggers: dict[str, Trigger] = {}
        self._proposed = ""

    def add(self, step: Step) -> None:
        """Take note of a step, once."""
        steps = self._runs.setdefault(step.run, Past()).steps
        if step in steps:
            return
        steps.append(step)
        if step.step == "trigger":
            self._triggers.setdefault(step.run, Trigger.from_json(step.detail["trigger"]))
        elif step.step == "propose":
            self._proposed = str(step.detail["digest"])

    def past(self, run: str) -> Past:
        """What is known of a run."""
        return self._runs.get(run, Past())

    def triggers(self) -> Sequence[Trigger]:
        """In the order in which they were taken up."""
        return list(self._triggers.values())

    def proposed(self) -> str:
        """What was proposed last."""
        return self._proposed


class KafkaJournal(Book):
    """runs.v1 of one pipeline. One service at a time writes it; `refresh` reads what the one before wrote."""

    def __init__(self, kafka: KafkaSettings, records: Records, publisher: Publisher) -> None:
        super().__init__()
        self._kafka, self._records, self._publisher = kafka, records, publisher
        self._next = 0

    def write(self, step: Step) -> None:
        """Publish and wait for the broker."""
        record: Record = {
            "id": step.run,
            "step": step.step,
            "state": step.state,
            "sequence": step.sequence,
            "key": step.key,
            "detail": canonical(step.detail).decode(),
            "at": time.time_ns() // 1_000_000,
        }
        self._publisher.write_now([self._records.out([(step.run, record)])])
        self.add(step)

    def refresh(self) -> None:
        """Read on."""
        for polled in read_topic(self._kafka, self._records.topic, {0: self._next}):
            for record in self._records.read(polled):
                self.add(step_of(record))
            self._next = int(polled.offsets[-1]) + 1


def step_of(record: Record) -> Step:
    """A record of runs.v1."""
    detail: dict[str, Any] = json.loads(record["detail"])
    return Step(record["id"], record["step"], record["state"], record["sequence"], record["key"], detail)


def told(value: JsonValue) -> dict[str, Any]:
    """A step's result as the detail of its record."""
    return value if isinstance(value, dict) else {"result": value}
