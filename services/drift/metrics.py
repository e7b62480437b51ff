"""Metrics of the drift service beside those of every worker."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge


@dataclass(frozen=True, slots=True)
class DriftMetrics:
    """What is watched, and what was raised."""

    alarms: Counter
    folded: Counter
    sequence: Gauge
    promised_accuracy: Gauge
    snapshot_bytes: Gauge

    @staticmethod
    def on(registry: CollectorRegistry) -> "DriftMetrics":
        """Declare them on `registry`."""
        return DriftMetrics(
            Counter(
                "millrace_drift_alarms_total", "Alarms written.", ["family", "detector"], registry=registry
            ),
            Counter(
                "millrace_drift_folded_total", "Outcomes and profiles folded.", ["topic"], registry=registry
            ),
            Gauge("millrace_drift_sequence", "The newest ledger position folded.", registry=registry),
            Gauge(
                "millrace_drift_promised_accuracy",
                "Mean confidence of the champion's newest answers, by profile.",
                ["unit"],
                registry=registry,
            ),
            Gauge("millrace_drift_snapshot_bytes", "Size of the newest snapshot.", registry=registry),
        )
