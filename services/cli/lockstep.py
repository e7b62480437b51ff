"""Steps of a replay in lockstep: where they are cut, and what must be over before the next one."""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import numpy as np

from services.cli.script import Script
from services.cli.standstill import PAUSE_S, START_S, Standstill
from services.stack.supervisor import plan_of
from shared.contracts.pipeline import Pipeline
from shared.errors import Refused, Retry
from shared.runtime.merge import EVENT
from shared.settings import KafkaSettings, home
from shared.topics import MODELS

Beat = Callable[[], None]
TIMEOUT_S = 900.0
"""A step may hold a training, and a training ten minutes by default."""
OBEYED = "millrace_models_offset"
DECIDES = "controller"
ANSWERS = "inference"


def cut_steps(script: Script, size: int) -> list[tuple[int, int]]:
    """Records `begin` to `end` of each step: `size` events with the labels up to the next one.

    What comes behind the last event, labels alone, is cut every `size` records.
    """
    if size < 1:
        raise Refused("a step holds at least one event")
    events = np.flatnonzero(script.kind == EVENT)
    total = len(script)
    last = int(events[-1]) + 1 if events.size else 0
    tail = [*range(last, total, size)] if total - last > size else []
    starts = sorted({0, *events[::size].tolist(), *tail})
    return list(zip(starts, [*starts[1:], total], strict=True))


@dataclass(frozen=True, slots=True)
class Lockstep:
    """Steps of `size` events through the services that run; see `replaying.Steps`."""

    ranges: Sequence[tuple[int, int]]
    standstill: Standstill
    timeout_s: float = TIMEOUT_S

    @staticmethod
    @contextmanager
    def of(
        kafka: KafkaSettings,
        pipeline: Pipeline,
        schema_ids: Mapping[str, int],
        script: Script,
        size: int,
        services: Sequence[str],
        timeout_s: float = TIMEOUT_S,
        start_s: float = START_S,
        beat: Beat = lambda: None,
    ) -> "Iterator[Lockstep]":
        """Lockstep of `script` with `services`, for a block.

        They may take `start_s` seconds to come up; `beat` is called until they have.
        """
        standstill = Standstill(kafka, pipeline, schema_ids, services, start_s, beat)
        try:
            yield Lockstep(cut_steps(script, size), standstill, timeout_s)
        finally:
            standstill.close()

    def step_over(self, come_to: int, beat: Beat) -> None:
        """All groups but the controller's have read everything; what it decides, it decides at rest."""
        others = [group for group in self.standstill.groups if not group.endswith(f".{DECIDES}")]
        self.standstill.wait(others, come_to, self.timeout_s, beat)

    def rest_over(self, beat: Beat) -> None:
        """Nobody has anything to read, and every inference worker obeys the newest announcement.

        A worker's word on a model comes after its obedience, and the controller may answer it with another
        announcement: so both must hold at once.
        """
        deadline = time.monotonic() + self.timeout_s
        still = self.standstill
        topic = MODELS.of(still.pipeline.name)
        while True:
            still.wait(still.groups, None, max(0.0, deadline - time.monotonic()), beat)
            end = still.end(topic)
            slow = self._disobedient(end)
            if not slow and not still.look(still.groups) and still.end(topic) == end:
                return
            if time.monotonic() > deadline:
                raise Retry(f"{', '.join(slow)} has not obeyed {topic} up to offset {end}")
            beat()
            time.sleep(PAUSE_S)

    def _disobedient(self, end: int) -> list[str]:
        """Names of the inference workers that do not obey everything before `end` of models.v1 yet."""
        if not any(group.endswith(f".{ANSWERS}") for group in self.standstill.groups):
            return []
        name = self.standstill.pipeline.name
        obeyed = {note.stem: obeyed_offset(note) for note in worker_notes(home(), name)}
        if not obeyed:
            return [f"no worker of {name}.{ANSWERS}"]
        return [worker for worker, offset in obeyed.items() if offset < end]


def services_of(pipeline: Pipeline) -> list[str]:
    """The services that must rest: all that the declaration asks for."""
    return list(dict.fromkeys(worker.service for worker in plan_of(pipeline)))


def worker_notes(folder: Path, pipeline: str) -> list[Path]:
    """Where the inference workers of this machine say how they are reached."""
    return sorted((folder / "run").glob(f"{pipeline}.{ANSWERS}-*.json"))


def obeyed_offset(note: Path) -> int:
    """The offset of models.v1 up to which a worker obeys; -1 where it does not say."""
    with suppress(OSError, ValueError, KeyError, URLError):
        url = str(json.loads(note.read_text())["url"])
        with urllib.request.urlopen(f"{url}/metrics", timeout=5.0) as answer:  # noqa: S310 - its own loopback
            return read_gauge(answer.read().decode(), OBEYED)
    return -1


def read_gauge(text: str, name: str) -> int:
    """The value of a gauge in Prometheus' text format; -1 where it is not there.

    >>> read_gauge("# TYPE x gauge\\nx 12.0\\n", "x")
    12
    """
    lines = (line.split() for line in text.splitlines() if line.startswith(name))
    return next((int(float(words[1])) for words in lines if words[0] == name), -1)
