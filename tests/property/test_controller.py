"""Laws of the controller under any mix of commands, figures, workers' words, cuts and kills."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.cli.hindsight import tell
from services.controller.core.controller import Controller
from services.controller.core.records import ACCEPTED, FELL_BACK, REFUSED, Command, Score, Word
from services.controller.core.state import DECLINED, OBEYED, TRANSITION, Entry, rebuild
from shared.contracts.policies import RollbackPolicy
from shared.models.announcement import CHAMPION, STATES
from tests.unit.controller.makers import BETTER, EQUAL, command, digest_of, propose, rules, score
from tests.unit.controller.worlds import INPUTS, World

ROLLBACK = RollbackPolicy.model_validate({"worse_by": 0.2, "window_labels": 500})
POLICIES = [
    rules(bootstrap=50),
    rules(bootstrap=50, rollback=ROLLBACK),
    rules(bootstrap=50, approval=True, canary_labels=100, rollback=ROLLBACK),
    rules(bootstrap=50, shadow_labels=100, canary_labels=100, rollback=ROLLBACK),
]
KINDS = ["approve", "reject", "promote", "rollback", "freeze", "unfreeze", "train"]
WAYS = {
    ("", "candidate"),
    ("candidate", "validated"),
    ("candidate", "rejected"),
    ("validated", "awaiting"),
    ("validated", "shadow"),
    ("validated", "champion"),
    ("validated", "rejected"),
    ("awaiting", "shadow"),
    ("awaiting", "champion"),
    ("awaiting", "rejected"),
    ("shadow", "canary"),
    ("shadow", "champion"),
    ("shadow", "rejected"),
    ("canary", "champion"),
    ("canary", "rejected"),
    ("canary", "rolled_back"),
    ("champion", "retired"),
    ("champion", "rolled_back"),
    ("retired", "champion"),
    ("rolled_back", "champion"),
}


@dataclass(frozen=True)
class Plan:
    """What happens next: kind, a version, numbers to make the rest of."""

    what: str
    version: int
    number: int
    expected: int


plans = st.builds(
    Plan,
    what=st.sampled_from(
        ["propose", "propose", "accept", "accept", "refuse", "fall", "score", "score", *KINDS]
    ),
    version=st.integers(-1, 6),
    number=st.integers(0, 400),
    expected=st.sampled_from([-1, -1, -1, 3, 7]),
)


def make(plan: Plan, offset: int) -> Command | Score | Word:
    """The record; a version's digest is that of the proposal that made it, guessed from its number."""
    if plan.what == "propose":
        return propose(offset, BETTER if plan.number % 3 else EQUAL, artefact=digest_of(7))
    if plan.what in KINDS:
        return command(plan.what, offset, plan.version, expected_sequence=plan.expected)
    if plan.what == "score":
        role = ("champion", "shadow", "canary")[plan.number % 3]
        return score(offset * 10, plan.version, plan.number / 200, role, total=plan.number)
    kind = {"accept": ACCEPTED, "refuse": REFUSED, "fall": FELL_BACK}[plan.what]
    digest = digest_of(1) if plan.version == 1 else digest_of(7)
    return Word(kind, plan.version, digest, "inference-0", "model.nonfinite", at=offset)


def lawful(entries: Sequence[Entry], announced: Sequence[Any]) -> None:
    """One champion at most after every record, sequences without a gap, every step a lawful one and audited."""
    transitions = [entry for entry in entries if entry.kind == TRANSITION]
    assert [entry.sequence for entry in transitions] == list(range(1, len(transitions) + 1))
    assert [(e.version, e.state, e.sequence, e.digest, e.reason) for e in transitions] == [
        (a.version, a.state, a.sequence, a.digest, a.reason) for a in announced
    ]
    states: dict[int, str] = {}
    for entry in transitions:
        assert entry.state in STATES
        assert states.get(entry.version, "") == entry.previous
        assert (entry.previous, entry.state) in WAYS | {("", "champion")}
        states[entry.version] = entry.state
        assert sum(state == CHAMPION for state in states.values()) <= 1
    assert sum(state == CHAMPION for state in states.values()) == 1


@given(st.sampled_from(POLICIES), st.lists(plans, max_size=25))
def test_any_history_is_lawful_and_is_had_again_from_its_entries(policy: Any, history: list[Plan]) -> None:
    controller = Controller(policy)
    controller.bootstrap(digest_of(1), 0)
    for offset, plan in enumerate(history):
        tell(controller, make(plan, offset))
    entries = controller.take()
    announced = [entry.announcement("fraud", "ab" * 32) for entry in entries if entry.kind == TRANSITION]
    lawful(entries, announced)
    assert rebuild(entries, []).digest() == controller.state.digest()
    asked = [o for o, plan in enumerate(history) if plan.what == "propose" or plan.what in KINDS[:-1]]
    answers = [e.command_offset for e in entries if e.kind in (OBEYED, DECLINED)]
    assert answers == asked


cuts = st.lists(
    st.tuples(*[st.integers(0, 4)] * 3, st.sampled_from(["", "", "", "kill", "abort", "save"])), max_size=15
)


@given(st.sampled_from(POLICIES), st.lists(plans, max_size=15), cuts)
def test_a_kill_anywhere_changes_nothing(policy: Any, history: list[Plan], turns: list[Any]) -> None:
    calm, stormy = World(policy), World(policy)
    for world in (calm, stormy):
        world.step()
        world.step()
        world.tell(*[make(plan, offset) for offset, plan in enumerate(history)])
    for scores, words, commands, what in turns:
        rows = dict(zip(INPUTS.topics, (scores, words, commands), strict=True))
        calm.step(rows)
        if what == "abort":
            stormy.step(rows, commit=False)
        stormy.step(rows)
        if what == "kill":
            stormy.kill()
        elif what == "save":
            stormy.save()
    for world in (calm, stormy):
        world.settle()
    lawful(stormy.entries(), stormy.announced())
    assert stormy.entries() == calm.entries()
    assert stormy.announced() == calm.announced()
    assert stormy.unit.digest() == calm.unit.digest()
    stormy.kill()
    assert stormy.unit.digest() == calm.unit.digest()
