"""docs/metrics.md lists every metric that a service shows, as it is declared, and no other."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.controller.metrics import DecisionMetrics
from services.drift.metrics import DriftMetrics
from services.features.metrics import ViewMetrics
from services.feedback.metrics import JoinMetrics
from services.inference.metrics import ModelMetrics
from services.ingest.metrics import DoorMetrics
from services.retrainer.metrics import RetrainerMetrics
from shared.runtime.instruments import Instruments

PAGE = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
SECTIONS: dict[str, Callable[[CollectorRegistry], Any]] = {
    "Every service on the data path": Instruments.on,
    "ingest": DoorMetrics.on,
    "features": ViewMetrics.on,
    "inference": ModelMetrics.on,
    "feedback": JoinMetrics.on,
    "drift": DriftMetrics.on,
    "retrainer": RetrainerMetrics.on,
    "controller": DecisionMetrics.on,
}


def declared(declare: Callable[[CollectorRegistry], Any]) -> Iterator[str]:
    """A row of the reference for each metric that `declare` puts on a registry, in the order of names."""
    registry = CollectorRegistry(auto_describe=True)
    declare(registry)
    rows = []
    for collector in registry._collector_to_names:
        for family in collector.collect():
            suffix = "_total" if family.type == "counter" else ""
            labels = getattr(collector, "_labelnames", None) or labels_of(family.samples)
            name, listed = f"`{family.name}{suffix}`", ", ".join(f"`{label}`" for label in labels)
            rows.append(f"| {name} | {family.type} | {listed} | {family.documentation} |")
    return iter(sorted(rows))


def labels_of(samples: Iterable[Any]) -> tuple[str, ...]:
    return tuple(next((tuple(s.labels) for s in samples if not s.name.endswith("_bucket")), ()))


@pytest.mark.parametrize("title", SECTIONS)
def test_the_page_lists_what_is_declared(title: str) -> None:
    section = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None
    listed = [line for line in section[1].splitlines() if line.startswith("| `")]
    assert listed == list(declared(SECTIONS[title])), "\n" + "\n".join(declared(SECTIONS[title]))
