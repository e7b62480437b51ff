"""Metrics of the inference service beside those of every worker."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """What the models do."""

    version: Gauge
    accepted: Counter
    refused: Counter
    fell_back: Counter

    @staticmethod
    def on(registry: CollectorRegistry) -> "ModelMetrics":
        """Declare them on `registry`."""
        return ModelMetrics(
            Gauge("millrace_model_version", "The version in force; 0 before the first.", registry=registry),
            Counter("millrace_models_accepted_total", "Announcements obeyed.", registry=registry),
            Counter("millrace_models_refused_total", "Refused, by reason.", ["reason"], registry=registry),
            Counter("millrace_models_fell_back_total", "Falls to the model before.", registry=registry),
        )
