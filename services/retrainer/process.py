"""The training process as the service sees it: asked by a line of JSON, watched, killed beyond its limits."""

import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol

from pydantic import JsonValue

from shared.errors import MillraceError, Retry

_ROOT = Path(__file__).resolve().parents[2]
TURN_S = 0.1
"""How often memory and the clock are looked at."""
START_S = 600.0
"""How long imports may take, on a machine that is busy."""
KEPT_SHARE = 0.5
"""Of the memory that a run may have: a process that holds more is not kept for the next one."""


class StepFailed(MillraceError):
    """A step came to nothing; `code` is bounded: refused, memory, time, crash."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail


class Stopped(MillraceError):
    """The service leaves: the run is taken up again at its next start."""


class Trainer(Protocol):
    """Who does the work of the steps."""

    def ask(self, job: dict[str, JsonValue], limit_s: float) -> Any:
        """The job's result.

        Raises:
            StepFailed: there is none.
            Retry: a store is away; the same job goes later.
            Stopped: the service leaves.
        """
        ...

    def close(self) -> None:
        """Let go of it, whatever it is doing."""
        ...


class TrainingProcess:
    """One process for the steps of a run; nothing it does outlives `close` or the service.

    With `back` it is given there instead of killed where it did all that it was asked and holds little memory.
    """

    def __init__(
        self,
        memory_bytes: int,
        niceness: int,
        threads: int,
        leaving: threading.Event,
        back: "Callable[[TrainingProcess], None] | None" = None,
    ) -> None:
        self._memory_bytes, self._leaving, self._back = memory_bytes, leaving, back
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        paths = [str(_ROOT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services.retrainer.training", str(memory_bytes), str(niceness)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment,
            start_new_session=True,
        )
        self._buffer = b""
        self._ready = False
        self._sound = True

    def ask(self, job: dict[str, JsonValue], limit_s: float) -> Any:
        """Send the job and wait for its answer, at most `limit_s` seconds; raises as every Trainer does."""
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        self._sound = False  # until it has answered
        try:
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise StepFailed("crash", self._last_words()) from error
        if not self._ready:  # its imports are not the job's time
            self._line(START_S)
            self._ready = True
        answer = json.loads(self._line(limit_s))
        self._sound = answer.get("failed", "retry") == "retry"
        return result_of(answer)

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def close(self) -> None:
        """Give it back, or kill what is left of it."""
        fit = self._sound and resident_bytes(self._process.pid) <= KEPT_SHARE * self._memory_bytes
        if self._back is not None and fit and self.alive:
            self._back(self)
        else:
            self.end()

    def end(self) -> None:
        """Kill what is left of it."""
        if self.alive:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._said.close()

    def _line(self, limit_s: float) -> bytes:
        deadline = time.monotonic() + limit_s
        pipe = self._process.stdout
        assert pipe is not None  # noqa: S101 - for the type checker
        with selectors.DefaultSelector() as ready:
            ready.register(pipe, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                self._check(deadline, limit_s)
                if ready.select(TURN_S):
                    more = os.read(pipe.fileno(), 65_536)
                    if not more:
                        self._process.wait()
                        raise StepFailed("crash", self._last_words())
                    self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _check(self, deadline: float, limit_s: float) -> None:
        if self._leaving.is_set():
            raise Stopped("the service leaves; the run goes on at its next start")
        if time.monotonic() > deadline:
            raise StepFailed("time", f"more than the {limit_s:g} s that [policy.retrain] allows")
        resident = resident_bytes(self._process.pid)
        if resident > self._memory_bytes:
            raise StepFailed(
                "memory", f"{resident} bytes, more than the {self._memory_bytes} that [policy.retrain] allows"
            )

    def _last_words(self) -> str:
        self._said.seek(0)
        words = self._said.read()[-2_000:].decode(errors="replace").strip()
        return f"the training process ended with {self._process.returncode}: {words.rsplit(chr(10), 1)[-1]}"


def result_of(answer: dict[str, Any]) -> Any:
    """What the process was asked for; StepFailed or Retry where it says that it has not got it."""
    if answer.get("failed") == "retry":
        raise Retry(answer["detail"])
    if "failed" in answer:
        raise StepFailed(answer["failed"], answer["detail"])
    return answer["done"]


def resident_bytes(pid: int) -> int:
    """Memory that a process holds; 0 where it is gone or this is no Linux."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


class Bench:
    """Trainers for one run after another, the same where it may be; the first starts before it is needed.

    What a process imports and compiles costs more than most trainings, so that it is kept.
    """

    def __init__(self, memory_bytes: int, niceness: int, threads: int, *, spare: bool) -> None:
        self.leaving = threading.Event()
        self._terms = (memory_bytes, niceness, threads)
        self._spare = spare
        self._next: TrainingProcess | None = None

    def __call__(self) -> Trainer:
        """The one that waits, or a new one; whoever takes it closes it."""
        self._drop_dead()
        found, self._next = self._next, None
        return found or self._made()

    def prepare(self) -> None:
        """Start the next one, so that its imports are done when it is asked."""
        self._drop_dead()
        if self._spare and self._next is None and not self.leaving.is_set():
            self._next = self._made()

    def _drop_dead(self) -> None:
        """Let go of one that ended while it waited, by the system's hand where memory was short."""
        if self._next is not None and not self._next.alive:
            self._next.end()
            self._next = None

    def _made(self) -> TrainingProcess:
        return TrainingProcess(*self._terms, self.leaving, self._keep if self._spare else None)

    def _keep(self, process: TrainingProcess) -> None:
        if self._next is None and not self.leaving.is_set():
            self._next = process
        else:
            process.end()

    def close(self) -> None:
        """Make all work stop, and let the spare one go."""
        self.leaving.set()
        found, self._next = self._next, None
        if found is not None:
            found.end()
