"""What a worker is given besides its stage, put together in a service's `__main__`."""

from collections.abc import Callable
from dataclasses import dataclass

from shared.runtime.deadletters import DeadLetterWriter
from shared.runtime.health import Health
from shared.runtime.instruments import Instruments
from shared.runtime.snapshots import SnapshotStore
from shared.runtime.stage import Tuning
from shared.settings import KafkaSettings

BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


def backoff(attempt: int) -> float:
    """Seconds to wait before try number `attempt` (from 0)."""
    return BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)]


@dataclass(frozen=True, slots=True)
class Context:
    """The outside of one worker process."""

    kafka: KafkaSettings
    slot: int
    store: SnapshotStore
    letters: DeadLetterWriter
    tuning: Tuning
    health: Health
    seen: Instruments
    tell: Callable[[], None]
    """Called every few seconds, to publish metrics."""
