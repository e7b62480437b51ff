"""Known changes of river's streams under the defaults: found within 500 outcomes, and nothing where none is."""

from dataclasses import replace

import numpy as np
import pytest

from services.drift.core.monitor import Monitor
from services.drift.core.records import Alarm, LabeledRows
from shared.contracts.policies import DriftPolicy
from tests.bench.drift_streams import CALM, Case, cases, stream

WITHIN = 500
CASES = {case.name: case for case in cases()}
ABRUPT = (
    "SEA 0 to 3, noise 10%",
    "Agrawal 5 to 6, perturbed 5%",
    "RBF other, 4 classes",
    "LED 3 swapped, noise 10%",
    "Friedman global",
)
GRADUAL = ("RBF moving, 2 classes", "Agrawal 5 to 6, perturbed 5%, ramp")


def alarms(rows: LabeledRows, classes: int) -> list[Alarm]:
    """What triggers, under the defaults."""
    monitor = Monitor(DriftPolicy(), [f"f{i}" for i in range(rows.features.shape[1])], classes)
    return [alarm for alarm in monitor.labeled(rows) if alarm.triggers]


@pytest.mark.parametrize("name", ABRUPT)
def test_an_abrupt_change_is_found_within_500_outcomes(name: str) -> None:
    found = alarms(*stream(CASES[name], seed=0))
    assert CALM <= found[0].sequence < CALM + WITHIN
    assert abs(found[0].since_sequence - CALM) < 100


@pytest.mark.parametrize("name", GRADUAL)
def test_a_gradual_change_is_found(name: str) -> None:
    assert alarms(*stream(CASES[name], seed=0))[0].sequence >= CALM


@pytest.mark.parametrize("name", ABRUPT)
def test_nothing_is_found_where_nothing_changed(name: str) -> None:
    case = CASES[name]
    rows, classes = stream(Case(case.name, case.family, case.before, case.before), seed=0)
    assert alarms(rows, classes) == []


def test_a_change_for_the_better_is_no_alarm() -> None:
    """The same rows with the worse world first."""
    rows, classes = stream(CASES["SEA 0 to 3, noise 10%"], seed=0)
    order = np.concatenate([np.arange(CALM, len(rows)), np.arange(CALM)])
    assert alarms(replace(rows.take(order), sequence=rows.sequence), classes) == []
