"""Runs a pipeline's services as child processes on one machine, and starts again what dies.

A worker that dies is started again at once, then after growing pauses; one that dies too often within a
minute
blows the fuse: all workers are stopped and `check` raises, since the code or the platform is wrong then.
So does one that ends by refusing its settings or declaration: another start would end the same way.
On a cluster something else does this work (systemd, Docker, Kubernetes); the services know nothing of it.
"""

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from services.stack import process
from services.stack.bytecode import kept_bytecode
from services.stack.process import Handle
from shared.contracts.pipeline import Pipeline
from shared.errors import FuseBlown, Refused
from shared.settings import home

WATCH_S = 0.05
DRAIN_S = 30.0
TAIL_BYTES = 2_000
# EX_CONFIG of sysexits: what a service ends with when it is refused.
REFUSED = 78

Services = Literal["data", "loop"]
"""Ingest, features and inference; or these and whatever learns from outcomes."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One process: the service's name, its slot among the service's workers, and what to run."""

    service: str
    slot: int
    command: tuple[str, ...]

    @property
    def name(self) -> str:
        """Such as `features-customer-0`; also the stem of its log and pidfile."""
        return f"{self.service}-{self.slot}"


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a dead worker comes back, and how often within `window_s` before the fuse blows."""

    first_s: float = 0.1
    longest_s: float = 5.0
    allowed: int = 10
    window_s: float = 60.0

    def pause_s(self, deaths: int) -> float:
        """The pause before the start that follows the `deaths`-th death of the window.

        >>> [RestartPolicy().pause_s(n) for n in (1, 2, 3, 9)]
        [0.1, 0.2, 0.4, 5.0]
        """
        return float(min(self.longest_s, self.first_s * 2 ** (deaths - 1)))


@dataclass(slots=True)
class _Slot:
    """A worker's changing side."""

    handle: Handle
    deaths: deque[float] = field(default_factory=deque)
    start_at: float | None = None
    restarts: int = 0


def plan(
    pipeline: str,
    entities: Sequence[str],
    workers: Mapping[str, int] | None = None,
    outcomes: bool = False,
    loop: bool = False,
) -> list[Worker]:
    """The workers of a pipeline: ingest, one features service an entity, inference; one of each by default.

    With `outcomes` the two stages of feedback come behind them, with `loop` drift, retrainer and controller.
    `workers` gives other numbers by service (`ingest`, `features-customer`, `inference`); `features` and
    `feedback` stand for every stage. Raises `Refused` when it names a service that the pipeline does not have.
    """
    stages = {f"features-{entity}": ("services.features", "--stage", entity) for entity in entities}
    joins = {f"feedback-{part}": ("services.feedback", "--stage", part) for part in ("join", "score")}
    learners = {name: (f"services.{name}",) for name in ("drift", "retrainer", "controller")}
    services: dict[str, tuple[str, ...]] = {
        "ingest": ("services.ingest",),
        **stages,
        "inference": ("services.inference",),
        **(joins if outcomes else {}),
        **(learners if loop else {}),
    }
    given = dict(workers or {})
    for name, members in (("features", stages), ("feedback", joins)):
        if name in given and members.keys() <= services.keys():
            number = given.pop(name)
            given = dict.fromkeys(members, number) | given
    unknown = given.keys() - services.keys()
    if unknown:
        raise Refused(
            f"{pipeline} has no service {sorted(unknown)[0]!r}; its services are {', '.join(services)}"
        )
    return [
        Worker(service, slot, _command(pipeline, module, slot, extra))
        for service, (module, *extra) in services.items()
        for slot in range(given.get(service, 1))
    ]


def plan_of(
    pipeline: Pipeline, workers: Mapping[str, int] | None = None, services: Services = "loop"
) -> list[Worker]:
    """All workers that the declaration asks for, or those of the data path alone."""
    whole = services == "loop"
    return plan(
        pipeline.name,
        [entity.name for entity in pipeline.entities],
        workers,
        outcomes=whole and pipeline.label is not None,
        loop=whole and pipeline.loops,
    )


def _command(pipeline: str, module: str, slot: int, extra: Sequence[str]) -> tuple[str, ...]:
    # -P: a folder `schemas` where the command runs must not stand before the package of that name.
    return (sys.executable, "-P", "-m", module, "--pipeline", pipeline, "--slot", str(slot), *extra)


class Supervisor:
    """Keeps `workers` running; their logs and pidfiles lie in `folder`.

    Workers that a killed supervisor left behind in the same folder are stopped by `start`. Safe to use from
    several threads. As a context it starts on entry and drains on exit.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        policy: RestartPolicy = RestartPolicy(),
    ) -> None:
        self._workers = {(worker.service, worker.slot): worker for worker in workers}
        self._folder = folder
        given = dict(environment or {})
        self._environment = given | kept_bytecode(home(), {**os.environ, **given})
        self._policy = policy
        self._slots: dict[tuple[str, int], _Slot] = {}
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._blown: FuseBlown | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start every worker and the watch over them."""
        with self._lock:
            if self._thread is not None:
                raise Refused("this supervisor has started already; make another one")
            process.stop_all([h for w in self._workers.values() if (h := self._recall(w))], DRAIN_S)
            for key, worker in self._workers.items():
                self._slots[key] = _Slot(self._spawn(worker))
            self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
            self._thread.start()

    def kill(self, service: str, slot: int = 0, number: int = signal.SIGKILL) -> bool:
        """Send a signal to a worker; whether it ran. It comes back as after any other death."""
        with self._lock:
            handle = self._slots[service, slot].handle
            ran = handle.alive
            handle.signal(number)
            return ran

    def alive(self) -> dict[str, int | None]:
        """Each worker's pid, None while it is down."""
        with self._lock:
            return {
                self._workers[key].name: slot.handle.pid if slot.handle.alive else None
                for key, slot in self._slots.items()
            }

    def restarts(self) -> dict[str, int]:
        """How often each worker was started again."""
        with self._lock:
            return {self._workers[key].name: slot.restarts for key, slot in self._slots.items()}

    def log(self, service: str, slot: int = 0) -> Path:
        """A worker's log."""
        return self._folder / f"{self._workers[service, slot].name}.log"

    def check(self) -> None:
        """Raise `FuseBlown` when a worker died too often; all workers are stopped then."""
        if self._blown is not None:
            raise self._blown

    def wait(self, timeout_s: float | None = None) -> None:
        """Sleep until `stop` is called elsewhere, the fuse blows (then it raises), or the time is over."""
        self._stopping.wait(timeout_s)
        self.check()

    def stop(self, patience_s: float = DRAIN_S) -> list[str]:
        """Let every worker finish its batch, commit and leave; gives the names of those that had to be
        killed.
        """
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._lock:
            names = {slot.handle: self._workers[key].name for key, slot in self._slots.items()}
            killed = process.stop_all(list(names), patience_s)
            for name in names.values():
                self._pidfile(name).unlink(missing_ok=True)
            return [names[handle] for handle in killed]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _watch(self) -> None:
        """Look after every worker until the end."""
        while not self._stopping.wait(WATCH_S):
            with self._lock:
                for worker, slot in self._each():
                    self._look_after(worker, slot, time.monotonic())
            if self._blown is not None:
                self.stop()

    def _look_after(self, worker: Worker, slot: _Slot, now: float) -> None:
        """One look at one worker: note its death, or start it again when its pause is over."""
        if slot.start_at is None:
            code = process.exit_code(slot.handle)
            if not slot.handle.alive:
                self._note_death(worker, slot, now, code)
        elif now >= slot.start_at:
            slot.handle, slot.start_at = self._spawn(worker), None
            slot.restarts += 1

    def _note_death(self, worker: Worker, slot: _Slot, now: float, code: int | None) -> None:
        slot.deaths.append(now)
        while slot.deaths[0] < now - self._policy.window_s:
            slot.deaths.popleft()
        if code == REFUSED:
            self._blow(worker, "was refused")
        elif len(slot.deaths) > self._policy.allowed:
            self._blow(worker, f"died {len(slot.deaths)} times within {self._policy.window_s:.0f} s")
        slot.start_at = now + self._policy.pause_s(len(slot.deaths))

    def _blow(self, worker: Worker, what: str) -> None:
        log = self.log(worker.service, worker.slot)
        self._blown = FuseBlown(
            f"{worker.name} {what}, all workers were stopped; its log {log} ends with: {_tail(log)}"
        )

    def _each(self) -> Iterator[tuple[Worker, _Slot]]:
        return ((self._workers[key], slot) for key, slot in self._slots.items())

    def _spawn(self, worker: Worker) -> Handle:
        """Start a worker in a group of its own: a Ctrl-C at the terminal reaches it only through `stop`."""
        handle = process.spawn(worker.command, self._folder / f"{worker.name}.log", self._environment)
        process.remember(handle, self._pidfile(worker.name))
        return handle

    def _recall(self, worker: Worker) -> Handle | None:
        return process.recall(self._pidfile(worker.name))

    def _pidfile(self, name: str) -> Path:
        return self._folder / f"{name}.pid"


def run_folder(home: Path, pipeline: str) -> Path:
    """Where a pipeline's workers have their logs and pidfiles."""
    return home / "run" / pipeline


def _tail(log: Path) -> str:
    """The end of a log."""
    if not log.is_file():
        return "nothing"
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
        return " / ".join(file.read().decode(errors="replace").strip().splitlines()[-5:])
