"""Metrics of the features service beside those of every worker."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge


@dataclass(frozen=True, slots=True)
class ViewMetrics:
    """What the Redis view tells of itself."""

    written: Counter
    failures: Counter
    stale: Gauge

    @staticmethod
    def on(registry: CollectorRegistry) -> "ViewMetrics":
        """Declare them on `registry`."""
        return ViewMetrics(
            Counter("millrace_view_written_total", "Vectors written to the view.", registry=registry),
            Counter("millrace_view_failures_total", "Writes that Redis did not take.", registry=registry),
            Gauge("millrace_view_stale", "1 while the view is behind the topic.", registry=registry),
        )
