"""Kills of every service and of the broker while payments flow: nothing lost, nothing twice, nothing else."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from services.cli.checking import compare_with_truth
from services.cli.payments import World, payments
from services.cli.replaying import Pace
from services.cli.truth import RAW, TRUTH
from services.stack import embedded
from tests.chaos.rehearsal import Outcome, Plan, Stalled, rehearse

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1_200)]

KILLS = {"ingest": 5, "features-customer": 5, "features-terminal": 5, "inference": 5}
AIMED = {"ingest": 1, "features-customer": 1, "features-terminal": 2}
FEW = payments(World(customers=600, terminals=500, days=25, seed=6))
ROWS = int(os.environ.get("MILLRACE_CHAOS_ROWS", "67000"))


@pytest.fixture(scope="module", autouse=True)
def own_stack() -> Iterator[None]:
    """A stack of this module's own: its broker will be killed."""
    before = os.environ.get("MILLRACE_HOME")
    with tempfile.TemporaryDirectory(prefix="millrace-chaos-", ignore_cleanup_errors=True) as folder:
        os.environ["MILLRACE_HOME"] = folder
        embedded.start(Path(folder))
        try:
            yield
        finally:
            embedded.stop(Path(folder))
            os.environ.pop("MILLRACE_HOME")
            if before is not None:
                os.environ["MILLRACE_HOME"] = before


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    """The Handbook's first payments where its file is at hand, else generated ones."""
    if Path(RAW).is_file():
        return pl.read_csv(RAW, n_rows=ROWS)
    return payments(World(customers=1_000, terminals=2_000, days=35, seed=5))


@pytest.fixture
def aimed() -> Plan:
    """Kills right behind an output, while there is more to do."""
    return Plan(kills=AIMED, aimed=True, sips=200, seed=10)


@pytest.fixture(scope="module")
def calm(frame: pl.DataFrame) -> Outcome:
    """The same payments with nobody killed."""
    return rehearse(frame, f"calm-{uuid.uuid4().hex[:6]}", Plan(inference=True))


def test_kills_change_nothing(frame: pl.DataFrame, calm: Outcome) -> None:
    plan = Plan(pace=Pace(rate=2_000), kills=KILLS, broker_kills=2, inference=True)
    outcome = rehearse(frame, f"kills-{uuid.uuid4().hex[:6]}", plan)
    assert outcome.killed == sum(KILLS.values()) + 2
    assert outcome.vectors.holds, str(outcome.vectors)
    assert outcome.predictions is not None
    assert outcome.predictions.holds, str(outcome.predictions)
    assert outcome.digest == calm.digest
    assert outcome.states == calm.states, f"{outcome.repeated} records were written twice"
    assert calm.repeated == 0
    assert all(calm.states.values())


def test_calm_run_equals_the_published_truth(calm: Outcome) -> None:
    if not Path(TRUTH[0]).is_file():
        pytest.skip("../shared/data is not here: the Handbook's published features cannot be compared")
    published = pl.read_csv(TRUTH[0])
    published = published.filter(pl.col(published.columns[0]) < ROWS)
    compared = compare_with_truth(calm.ids, calm.names, calm.matrix, published)
    assert compared.rows > 0
    assert compared.mismatches == 0, compared.examples


def test_kills_between_output_and_commit_change_nothing(aimed: Plan) -> None:
    outcome = rehearse(FEW, f"aimed-{uuid.uuid4().hex[:6]}", aimed)
    assert outcome.killed == sum(AIMED.values())
    assert outcome.vectors.holds, str(outcome.vectors)


def test_without_transactions_kills_show(aimed: Plan) -> None:
    """The negative control: the same kills double, lose or change something once outputs and offsets are apart."""
    for attempt in range(3):
        plan = replace(aimed, transactional=False, seed=10 + attempt)
        try:
            outcome = rehearse(FEW, f"plain-{uuid.uuid4().hex[:6]}", plan)
        except Stalled:
            return
        assert outcome.killed == sum(AIMED.values())
        if not outcome.vectors.holds:
            return
    pytest.fail("kills without transactions left no trace: this control no longer controls anything")
