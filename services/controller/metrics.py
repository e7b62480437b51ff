"""Metrics of the controller beside those of every worker."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.controller.core.state import TRANSITION, Entry, State


@dataclass(frozen=True, slots=True)
class DecisionMetrics:
    """What was decided, and what stands."""

    transitions: Counter
    notes: Counter
    champion: Gauge
    sequence: Gauge
    frozen: Gauge

    @staticmethod
    def on(registry: CollectorRegistry) -> "DecisionMetrics":
        """Declare them on `registry`."""
        return DecisionMetrics(
            Counter(
                "millrace_controller_transitions_total", "By the state entered.", ["state"], registry=registry
            ),
            Counter(
                "millrace_controller_notes_total",
                "Commands obeyed or refused, and incidents.",
                ["kind"],
                registry=registry,
            ),
            Gauge("millrace_controller_champion_version", "The version that shall serve.", registry=registry),
            Gauge("millrace_controller_sequence", "The newest announcement's.", registry=registry),
            Gauge("millrace_controller_frozen", "1 while promotions are frozen.", registry=registry),
        )

    def see(self, entries: list[Entry], state: State) -> None:
        """Count what was decided; show what stands."""
        for entry in entries:
            if entry.kind == TRANSITION:
                self.transitions.labels(entry.state).inc()
            else:
                self.notes.labels(entry.kind).inc()
        self.champion.set(0 if state.champion is None else state.champion.number)
        self.sequence.set(state.sequence)
        self.frozen.set(int(state.frozen))
