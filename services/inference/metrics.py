"""Metrics of the inference service beside those of every worker."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """What the models do."""

    version: Gauge
    accepted: Counter
    refused: Counter
    failed: Counter
    offset: Gauge
    unexplained: Counter

    @staticmethod
    def on(registry: CollectorRegistry) -> "ModelMetrics":
        """Declare them on `registry`."""
        offset = Gauge(
            "millrace_models_offset",
            "The offset of models.v1 up to which all announcements are in effect; -1 before the first reading.",
            registry=registry,
        )
        offset.set(-1)
        return ModelMetrics(
            Gauge("millrace_model_version", "The version in force; 0 before the first.", registry=registry),
            Counter("millrace_models_accepted_total", "Obeyed, by role.", ["role"], registry=registry),
            Counter("millrace_models_refused_total", "Refused, by reason.", ["reason"], registry=registry),
            Counter(
                "millrace_models_failed_total",
                "Found unfit while they answered, by role and reason.",
                ["role", "reason"],
                registry=registry,
            ),
            offset,
            Counter(
                "millrace_attributions_failed_total",
                "Predictions that were to be explained and could not be.",
                registry=registry,
            ),
        )
