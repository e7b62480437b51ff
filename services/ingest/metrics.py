"""What the door counts, declared as data: name, help and labels, all bounded."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from services.ingest.core.fold import Counts


@dataclass(frozen=True, slots=True)
class Declared:
    """One counter: its name without `_total`, what it says, and its labels."""

    name: str
    help: str
    labels: tuple[str, ...]


ACCEPTED = Declared("millrace_ingest_accepted", "Records let through, by kind: event or label.", ("kind",))
DUPLICATES = Declared("millrace_ingest_duplicates", "Repeats dropped, by kind: event or label.", ("kind",))
ALL = (ACCEPTED, DUPLICATES)


@dataclass(slots=True, eq=False)
class DoorMetrics(Collector):
    """Sums the counts of all units of this process, those given back included."""

    _units: dict[int, Counts] = field(default_factory=dict)
    _gone: Counts = field(default_factory=Counts)

    @staticmethod
    def on(registry: CollectorRegistry) -> "DoorMetrics":
        """Declare the counters on `registry`."""
        made = DoorMetrics()
        registry.register(made)
        return made

    def watch(self, number: int, counts: Counts) -> None:
        """Count what unit `number` counts from now on; what an earlier one of this number counted stays."""
        before = self._units.get(number)
        if before is not None:
            self._gone.accepted.update(before.accepted)
            self._gone.duplicates.update(before.duplicates)
        self._units[number] = counts

    def collect(self) -> Iterable[Metric]:
        """The sums, for Prometheus."""
        every = [self._gone, *self._units.values()]
        yield _family(ACCEPTED, [counts.accepted for counts in every])
        yield _family(DUPLICATES, [counts.duplicates for counts in every])


def _family(declared: Declared, counted: list[Counter[str]]) -> Metric:
    total = sum(counted, Counter[str]())
    family = CounterMetricFamily(declared.name, declared.help, labels=declared.labels)
    for kind in ("event", "label"):
        family.add_metric([kind], total[kind])
    return family
