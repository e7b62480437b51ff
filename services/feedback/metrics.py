"""What feedback counts, declared as data: name, help and labels, all bounded."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from services.feedback.core.walk import (
    CONFLICT,
    DUPLICATE,
    NO_CLASS,
    NO_PREDICTION,
    ORPHAN,
    REPEAT,
    SAYS_CORRECTION,
    SAYS_LABEL,
    SAYS_LATE,
    SAYS_MISSING,
    STALE,
)

OUTCOMES = "millrace_feedback_outcomes"
"""Counter of what labels, events and the passing of time came to."""
NAMES = {
    SAYS_LABEL: "label",
    SAYS_MISSING: "missing",
    SAYS_LATE: "late",
    SAYS_CORRECTION: "correction",
    DUPLICATE: "duplicate",
    REPEAT: "event_again",
    CONFLICT: "conflict",
    ORPHAN: "orphan",
    STALE: "stale",
    NO_PREDICTION: "unpredicted",
    NO_CLASS: "no_class",
}


@dataclass(slots=True, eq=False)
class JoinMetrics(Collector):
    """Sums the counts of all units of this process, those given back included."""

    _units: dict[int, Counter[int]] = field(default_factory=dict)
    _gone: Counter[int] = field(default_factory=Counter)

    @staticmethod
    def on(registry: CollectorRegistry) -> "JoinMetrics":
        """Declare the counter on `registry`."""
        made = JoinMetrics()
        registry.register(made)
        return made

    def watch(self, number: int, counts: Counter[int]) -> None:
        """Count what unit `number` counts from now on; what an earlier one of this number counted stays."""
        before = self._units.get(number)
        if before is not None:
            self._gone.update(before)
        self._units[number] = counts

    def collect(self) -> Iterable[Metric]:
        """The sums, for Prometheus."""
        total = sum(self._units.values(), Counter(self._gone))
        family = CounterMetricFamily(
            OUTCOMES, "What labels, events and the passing of time came to, by kind.", labels=("kind",)
        )
        for code, name in NAMES.items():
            family.add_metric([name], total[code])
        yield family
