"""The same input gives the same feature vectors, bit for bit, however it is run; without the merge it does not."""

import pytest

from services.cli.payments import World, payments
from services.cli.replaying import Pace
from services.stack.endpoints import Endpoints
from tests.chaos.rehearsal import Outcome, Plan, rehearse

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

FRAME = payments(World(customers=400, terminals=300, days=30, seed=3))
FEATURES = {"ingest": 1, "features-customer": 2, "features-terminal": 2}
WAYS = {
    "one partition": Plan(partitions=1),
    "four partitions, throttled": Plan(pace=Pace(rate=4_000)),
    "four partitions, two workers": Plan(workers=2),
    "four partitions, two workers, kills": Plan(workers=2, pace=Pace(rate=3_000), kills=FEATURES),
}


@pytest.fixture(scope="module")
def first(stack: Endpoints) -> Outcome:  # noqa: ARG001 - it must run
    """Four partitions, one worker a service, full speed, nobody killed."""
    return rehearse(FRAME, _name("first"), Plan())


def _name(way: str) -> str:
    import uuid

    return f"order-{way.replace(' ', '-').replace(',', '')}-{uuid.uuid4().hex[:6]}"


@pytest.mark.parametrize("way", WAYS)
def test_same_vectors(way: str, first: Outcome) -> None:
    outcome = rehearse(FRAME, _name(way), WAYS[way])
    assert outcome.vectors.holds, str(outcome.vectors)
    assert outcome.digest == first.digest


def test_without_the_merge_the_order_is_chance(first: Outcome) -> None:
    for attempt in range(3):
        plan = Plan(order="arrival", workers=2, pace=Pace(rate=8_000.0 - 2_000 * attempt))
        if rehearse(FRAME, _name("arrival"), plan).digest != first.digest:
            return
    pytest.fail("four runs without the merge agreed: this control no longer controls anything")
