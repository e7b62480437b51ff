"""When a source is called idle, and what a replay's word means for it: rules over times that are given."""

from dataclasses import dataclass

QUIET_MS = 20
"""Silence after which a source at its end is idle while its times are near the clock."""
NEAR_MS = 60_000
"""How near: a source that carries the present is heard again soon or not at all."""
CATCH_UP_QUIET_MS = 2_000
"""Silence needed while its times are far from the clock: a slow backfill may only be pausing."""


@dataclass(slots=True)
class SourceClock:
    """One source of a unit: when rows were last read from it, and up to which order time they came.

    `order_ms` is 0 while it has none. The rules are a table in the tests.
    """

    order_ms: int = 0
    heard_ms: int | None = None
    at_end: bool = False

    def hear(self, now_ms: int, order_ms: int) -> None:
        """Rows were read at `now_ms`, the last of which stands at `order_ms`."""
        self.heard_ms = now_ms
        self.order_ms = order_ms

    def idle(self, now_ms: int, replay_open: bool) -> bool:
        """Whether nothing more is expected from the source until further notice.

        Never while a replay is open or records wait. Silence counts from the first time this is asked.
        """
        if self.heard_ms is None:
            self.heard_ms = now_ms
        if replay_open or not self.at_end:
            return False
        near = self.order_ms == 0 or abs(now_ms - self.order_ms) <= NEAR_MS
        return now_ms - self.heard_ms >= (QUIET_MS if near else CATCH_UP_QUIET_MS)
