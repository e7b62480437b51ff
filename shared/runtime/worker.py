"""Runs a stage in this process, through as many sessions as it takes.

Whatever fails inside a turn ends the session and throws the worker back to the committed offsets: consumer,
producer and state are made anew, as after a kill. There is one way to recover, and it is used for everything.
"""

import threading

from shared.errors import Fatal, Retry
from shared.runtime.context import Context, backoff
from shared.runtime.fuse import Fuse
from shared.runtime.session import Session
from shared.runtime.stage import Stage


class Worker:
    """Runs one stage until `stop` is set."""

    def __init__(self, stage: Stage, context: Context) -> None:
        self._stage = stage
        self._context = context
        self._fuse = Fuse(context.tuning.fuse_limit)
        self.stop = threading.Event()

    def run(self) -> None:
        """Turn until stopped; start again from the committed offsets after a failure that may pass.

        Raises:
            Fatal: going on would lose or double something, or nothing was committed in many tries.
        """
        attempt = 0
        while not self.stop.is_set():
            session = Session(self._stage, self._context, self._fuse)
            try:
                session.run(self.stop)
            except Retry as failure:
                attempt = 0 if session.commits else attempt + 1
                if attempt > self._context.tuning.resets:
                    raise Fatal(f"no commit in {attempt} tries; the last failure: {failure}") from failure
                self._rest(attempt, failure)
            finally:
                session.close()

    def _rest(self, attempt: int, failure: Retry) -> None:
        health = self._context.health
        self._context.seen.resets.inc()
        health.ready, health.detail = False, f"starting again: {failure}"
        health.beat()
        self.stop.wait(backoff(attempt))
