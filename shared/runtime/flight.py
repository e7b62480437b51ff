"""The transaction under way: it is written by a thread of its own while the loop folds the next rows.

There is one at a time. The loop waits for it where what is committed matters: before the next one, at a
rebalance, before a snapshot, and at the end.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from confluent_kafka import TopicPartition

from shared.kafka.transactions import Sink
from shared.runtime.unit import DeadLetter, Emission, Out


@dataclass(frozen=True, slots=True)
class Cargo:
    """What one transaction carries: outputs, the letters among them, and the emissions by unit."""

    outs: Sequence[Out]
    dead: Sequence[DeadLetter]
    emissions: dict[int, Emission]


class Flight:
    """At most one transaction under way on `sink`; `landed` is told of each that stands, in the loop's thread."""

    def __init__(self, sink: Sink, landed: Callable[[Cargo, float], None]) -> None:
        self._sink, self._landed = sink, landed
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="commit")
        self._under_way: tuple[Future[float], Cargo] | None = None

    @property
    def busy(self) -> bool:
        """Whether a transaction is still being written."""
        return self._under_way is not None and not self._under_way[0].done()

    def start(self, cargo: Cargo, offsets: list[TopicPartition], group: Any) -> None:
        """Send the next one off; waits for the one before."""
        self.settle()
        self._under_way = (self._pool.submit(self._write, cargo.outs, offsets, group), cargo)

    def settle(self) -> None:
        """Wait for the one under way.

        Raises:
            Retry: it does not stand; begin again from the committed offsets.
            Fenced: another worker holds the transactional id.
        """
        if self._under_way is not None:
            (future, cargo), self._under_way = self._under_way, None
            self._landed(cargo, future.result())

    def _write(self, outs: Sequence[Out], offsets: list[TopicPartition], group: Any) -> float:
        started = time.perf_counter()
        self._sink.commit(outs, offsets, group)
        return time.perf_counter() - started

    def close(self) -> None:
        """Wait for the thread and let go of the client; what became of the last transaction is not asked."""
        self._pool.shutdown(wait=True)
        self._sink.close()
