"""Laws of `whatif`: the policy that ruled decides on its own log what it has decided, refused commands and all."""

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.cli.hindsight import History, Told, rehearse, tell
from services.controller.core.book import Rules
from services.controller.core.controller import Controller
from services.controller.core.records import ACCEPTED, FELL_BACK, REFUSED, Word
from tests.property.test_controller import KINDS, POLICIES
from tests.unit.controller.makers import BETTER, EQUAL, command, digest_of, history_of, propose, score

WHAT = ["propose", "propose", "accept", "accept", "refuse", "fall", "score", "score", *KINDS]


@dataclass(frozen=True)
class Plan:
    """What happens next, to the version so many before the newest.

    A command expects the announcement so many `behind` the newest, or any at -1.
    """

    what: str
    before: int
    number: int
    behind: int


plans = st.builds(
    Plan,
    what=st.sampled_from(WHAT),
    before=st.sampled_from([0, 0, 0, 1, 2]),
    number=st.integers(0, 400),
    behind=st.sampled_from([-1, -1, -1, 0, 0, 1]),
)


def make(plan: Plan, at: int, controller: Controller) -> Told:
    """The record that follows on what was decided so far, at millisecond and offset `at`."""
    state = controller.state
    version = max(1, state.next_version - 1 - plan.before)
    if plan.what == "propose":
        compared = state.champion if plan.behind <= 0 and state.champion else state.versions[version]
        terms = {"champion": {"version": compared.number, "digest": compared.digest}}
        proof = BETTER if plan.number % 4 else EQUAL
        return propose(at, proof, digest_of(state.next_version), at=at, parameters=terms)
    if plan.what in KINDS:
        seen = -1 if plan.behind < 0 else state.sequence - plan.behind
        return command(plan.what, at, version, expected_sequence=seen, at=at)
    if plan.what == "score":
        role = ("champion", "shadow", "canary")[plan.number % 3]
        return replace(score(at, version, plan.number / 200, role, total=plan.number), at=at)
    kind = {"accept": ACCEPTED, "refuse": REFUSED, "fall": FELL_BACK}[plan.what]
    return Word(kind, version, state.versions[version].digest, "inference-0", "model.nonfinite", at=at)


def lived(policy: Rules, life: list[Plan]) -> History:
    """What the log holds once a controller has lived through the plans."""
    controller = Controller(policy)
    controller.bootstrap(digest_of(1), 0)
    said: list[Told] = []
    for at, plan in enumerate(life, start=1):
        told = make(plan, at, controller)
        said.append(told)
        tell(controller, told)
    return history_of(controller.take(), said)


@given(st.sampled_from(POLICIES), st.lists(plans, max_size=25), st.integers(-1, 25))
def test_the_policy_that_ruled_decides_the_same_from_any_outcome_on(
    policy: Any, life: list[Plan], begin: int
) -> None:
    history = lived(policy, life)
    entries, _, assumed = rehearse(history, policy, begin)
    assert entries == [e for e in history.entries if begin < 0 or e.labeled_sequence >= begin]
    assert assumed == set()
