"""Keeps the Redis view behind the committed records, in a thread of its own.

The loop only hands over what it has committed. When Redis is away the newest vectors wait (one a key) and are
written when it is back: serving goes on, the view says by its offsets how old it is.
"""

import threading

from services.features.metrics import ViewMetrics
from shared.codec.batch import Batch
from shared.errors import Retry
from shared.store.view import FeatureView, newest_rows


class ViewWriter:
    """Takes committed batches; writes the newest row of each key every `interval_s` seconds."""

    def __init__(self, view: FeatureView, metrics: ViewMetrics, interval_s: float) -> None:
        self._view, self._metrics, self._interval_s = view, metrics, interval_s
        self._lock = threading.Lock()
        self._waiting: list[Batch] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="view", daemon=True)
        self._thread.start()

    def take(self, batch: Batch) -> None:
        """Rows in the features layout whose transaction stands."""
        with self._lock:
            self._waiting.append(batch)

    def close(self) -> None:
        """Write what waits, once, and end."""
        self._stop.set()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        newest = newest_rows(Batch.concat(waiting))
        try:
            self._metrics.written.inc(self._view.write(newest))
            self._metrics.stale.set(0)
        except Retry:
            self._metrics.failures.inc()
            self._metrics.stale.set(1)
            with self._lock:
                self._waiting = [newest, *self._waiting]
