"""Metrics of the retrainer beside those of every service."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


@dataclass(frozen=True, slots=True)
class RetrainerMetrics:
    """What becomes of triggers."""

    runs: Counter
    seconds: Histogram
    in_flight: Gauge
    sequence: Gauge
    outcomes: Gauge

    @staticmethod
    def on(registry: CollectorRegistry) -> "RetrainerMetrics":
        """Declare them on `registry`."""
        return RetrainerMetrics(
            Counter(
                "millrace_runs_total", "Retrainings by trigger and end.", ["kind", "end"], registry=registry
            ),
            Histogram(
                "millrace_run_seconds",
                "How long a retraining took.",
                buckets=(1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600),
                registry=registry,
            ),
            Gauge("millrace_run_in_flight", "1 while a retraining is under way.", registry=registry),
            Gauge("millrace_ledger_sequence", "The newest outcome that was looked at.", registry=registry),
            Gauge("millrace_ledger_outcomes", "Events with an outcome so far.", registry=registry),
        )
