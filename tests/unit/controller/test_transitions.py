"""Every way from state to state, by name."""

import pytest

from services.controller.core.book import Rules
from services.controller.core.controller import Controller
from services.controller.core.records import FAILING, FELL_BACK, REFUSED
from services.controller.core.state import Entry, rebuild
from shared.contracts.policies import RollbackPolicy
from tests.unit.controller.makers import (
    BETTER,
    EQUAL,
    WORSE,
    command,
    digest_of,
    propose,
    rules,
    score,
    started,
    told,
    word,
)

ROLLBACK = RollbackPolicy.model_validate({"worse_by": 0.2, "window_labels": 500})


def first(asked: Rules) -> list[Entry]:
    """The entries before those that `started` leaves."""
    controller = Controller(asked)
    controller.bootstrap(digest_of(1), 1_000)
    return controller.take()


def promoted(asked: object = None, version: int = 2, approve: bool = False) -> Controller:
    """A controller whose version 2 has replaced version 1."""
    controller = started(rules(rollback=ROLLBACK) if asked is None else asked)  # type: ignore[arg-type]
    controller.score(score(100, 1, 0.6))
    controller.command(propose(0))
    if approve:
        controller.command(command("approve", 1, version))
    controller.word(word(controller, version))
    controller.take()
    champion = controller.state.champion
    assert champion is not None
    assert champion.number == version
    return controller


def states(controller: Controller) -> dict[int, str]:
    return {number: version.state for number, version in controller.state.versions.items()}


def test_where_nobody_serves_the_first_version_does_from_the_start() -> None:
    controller = Controller(rules())
    controller.bootstrap(digest_of(1), 5)
    (entry,) = controller.take()
    assert (entry.version, entry.state, entry.reason, entry.sequence) == (1, "champion", "bootstrap", 1)
    controller.bootstrap(digest_of(1), 6)
    assert controller.take() == []


def test_a_better_candidate_becomes_champion_once_a_worker_has_accepted_it() -> None:
    controller = started()
    controller.command(propose(0))
    assert told(controller.take()) == [
        "2 candidate proposed",
        "2 validated gate.passed",
        "2 shadow gate.passed",
        "command.obeyed gate.passed",
    ]
    controller.word(word(controller, 2))
    entries = controller.take()
    assert told(entries) == ["1 retired replaced", "2 champion shadow.passed"]
    assert [entry.sequence for entry in entries] == [5, 6]


@pytest.mark.parametrize(("proof", "reason"), [(EQUAL, "gate.margin"), (WORSE, "gate.margin")])
def test_a_candidate_that_is_not_better_is_rejected_and_says_why(proof: bytes, reason: str) -> None:
    controller = started()
    controller.command(propose(0, proof))
    entries = controller.take()
    assert told(entries) == ["2 candidate proposed", f"2 rejected {reason}", f"command.obeyed {reason}"]
    assert entries[1].detail["figures"]["low"] <= 0
    assert states(controller) == {1: "champion", 2: "rejected"}


def test_shadow_lasts_until_its_labels_are_there() -> None:
    controller = started(rules(shadow_labels=200))
    controller.command(propose(0))
    controller.word(word(controller, 2))
    controller.score(score(100, 1, 0.6))
    controller.score(score(100, 2, 0.5, "shadow", total=199))
    assert states(controller)[2] == "shadow"
    controller.score(score(200, 2, 0.5, "shadow", total=200))
    assert states(controller) == {1: "retired", 2: "champion"}


def test_labels_without_acceptance_do_not_end_a_shadow() -> None:
    controller = started(rules(shadow_labels=200))
    controller.command(propose(0))
    controller.score(score(200, 2, 0.5, "shadow", total=200))
    assert states(controller)[2] == "shadow"
    controller.word(word(controller, 2))
    assert states(controller)[2] == "champion"


def test_a_shadow_that_does_worse_is_rejected() -> None:
    controller = started(rules(shadow_labels=200))
    controller.command(propose(0))
    controller.word(word(controller, 2))
    controller.score(score(100, 1, 0.3))
    controller.take()
    controller.score(score(200, 2, 0.5, "shadow", total=200))
    (entry,) = controller.take()
    assert told([entry]) == ["2 rejected shadow.worse"]
    assert entry.detail["compared"]["better_by"] == pytest.approx(-0.2)


def test_a_canary_has_its_share_and_becomes_champion_after_its_labels() -> None:
    controller = started(rules(shadow_labels=10, canary_labels=300))
    controller.command(propose(0))
    controller.word(word(controller, 2))
    controller.score(score(10, 2, 0.5, "shadow", total=10))
    entry = controller.take()[-1]
    assert told([entry]) == ["2 canary shadow.passed"]
    said = entry.announcement("fraud", "ab" * 32)
    assert said is not None
    assert said.share == 0.1
    controller.score(score(400, 2, 0.5, "canary", total=299))
    assert states(controller)[2] == "canary"
    controller.score(score(500, 2, 0.5, "canary", total=300))
    assert told(controller.take()) == ["1 retired replaced", "2 champion canary.passed"]


def test_a_canary_that_does_worse_is_rolled_back() -> None:
    controller = started(rules(canary_labels=300))
    controller.command(propose(0))
    controller.word(word(controller, 2))
    controller.score(score(100, 1, 0.3))
    controller.take()
    controller.score(score(300, 2, 0.9, "canary", total=300))
    assert told(controller.take()) == ["2 rolled_back canary.worse"]


TURNED_AWAY = {
    "shadow refused": (rules(), "shadow", REFUSED, "golden.mismatch", "2 rejected golden.mismatch"),
    "shadow unsigned": (rules(), "shadow", REFUSED, "signature.missing", "2 rejected signature.missing"),
    "canary refused": (
        rules(canary_labels=300),
        "canary",
        REFUSED,
        "resources.memory",
        "2 rolled_back resources.memory",
    ),
    "canary fell back": (
        rules(canary_labels=300),
        "canary",
        FELL_BACK,
        "model.nonfinite",
        "2 rolled_back model.nonfinite",
    ),
}


@pytest.mark.parametrize("case", TURNED_AWAY)
def test_what_a_worker_turns_away_goes_no_further(case: str) -> None:
    asked, state, kind, reason, expected = TURNED_AWAY[case]
    controller = started(asked)
    controller.command(propose(0))
    if state == "canary":
        controller.word(word(controller, 2))
    assert states(controller)[2] == state
    controller.take()
    controller.word(word(controller, 2, kind, reason))
    assert told(controller.take()) == [expected]


IGNORED = {
    "another digest": (REFUSED, "golden.mismatch", "ff" * 32),
    "only replaced": (REFUSED, "superseded", ""),
    "only old": (REFUSED, "version.stale", ""),
}


@pytest.mark.parametrize("case", IGNORED)
def test_words_that_do_not_speak_of_the_model_change_nothing(case: str) -> None:
    kind, reason, digest = IGNORED[case]
    controller = started()
    controller.command(propose(0))
    controller.take()
    controller.word(word(controller, 2, kind, reason, digest))
    assert controller.take() == []


def test_a_champion_that_workers_give_up_makes_way_for_the_one_before() -> None:
    controller = promoted()
    controller.word(word(controller, 2, FELL_BACK, "model.nonfinite"))
    entries = controller.take()
    assert told(entries) == ["2 rolled_back model.nonfinite", "1 champion model.nonfinite"]
    assert entries[1].detail["announced"] == "rollback"
    controller.word(word(controller, 2, FELL_BACK, "model.nonfinite"))
    assert controller.take() == []


def test_a_champion_that_a_worker_keeps_only_for_want_of_another_makes_way_too() -> None:
    controller = promoted()
    controller.word(word(controller, 2, FAILING, "model.nonfinite"))
    assert states(controller) == {1: "champion", 2: "rolled_back"}


def test_a_signature_that_one_worker_does_not_know_undoes_no_champion() -> None:
    controller = promoted()
    controller.word(word(controller, 2, REFUSED, "signature.unknown_key"))
    assert controller.take() == []


def test_the_first_champion_stays_whatever_is_said_of_it() -> None:
    controller = started()
    controller.word(word(controller, 1, FELL_BACK, "model.nonfinite"))
    assert told(controller.take()) == ["model.incident model.nonfinite"]
    assert states(controller) == {1: "champion"}


FIGURES = {
    "as good": (score(200, 2, 0.6, total=100), []),
    "a little worse": (score(200, 2, 0.79, total=100), []),
    "worse": (
        score(200, 2, 0.81, total=100),
        ["2 rolled_back rollback.quality", "1 champion rollback.quality"],
    ),
    "worse in a slice": (score(200, 2, 0.81, total=100, slice="night"), []),
    "worse over too few": (score(200, 2, 0.81, total=100, rows=99), []),
    "worse too late": (score(900, 2, 0.81, total=501), []),
    "worse of what has settled": (score(200, 2, 0.81, total=100, state="final"), []),
    "worse as shadow": (score(200, 2, 0.81, "shadow", total=100), []),
    "another version": (score(200, 1, 0.81, total=300), []),
    "another metric": (score(200, 2, 0.1, metric="accuracy", total=100), []),
    "not a number": (score(200, 2, float("nan"), total=100), []),
}


@pytest.mark.parametrize("case", FIGURES)
def test_a_champion_falls_by_the_declared_rule_alone(case: str) -> None:
    figure, expected = FIGURES[case]
    controller = promoted()
    controller.score(figure)
    assert told(controller.take()) == expected


def test_what_came_back_is_not_undone_by_figures_again() -> None:
    controller = promoted()
    controller.score(score(200, 2, 0.9, total=100))
    controller.take()
    controller.score(score(300, 1, 5.0, total=200))
    assert controller.take() == []


def test_a_rollback_passes_over_versions_that_were_given_up() -> None:
    controller = promoted()
    controller.command(propose(1))
    controller.word(word(controller, 3))
    controller.word(word(controller, 3, FELL_BACK, "model.nonfinite"))
    assert states(controller) == {1: "retired", 2: "champion", 3: "rolled_back"}
    controller.word(word(controller, 2, FELL_BACK, "model.nonfinite"))
    assert states(controller) == {1: "champion", 2: "rolled_back", 3: "rolled_back"}


def test_a_newer_candidate_waits_for_one_that_a_worker_has_accepted() -> None:
    controller = started(rules(shadow_labels=200))
    controller.command(propose(0))
    controller.word(word(controller, 2))
    controller.command(propose(1))
    assert states(controller) == {1: "champion", 2: "shadow", 3: "validated"}
    controller.command(propose(2))
    assert states(controller) == {1: "champion", 2: "shadow", 3: "rejected", 4: "validated"}
    controller.word(word(controller, 2, REFUSED, "golden.mismatch"))
    assert states(controller) == {1: "champion", 2: "rejected", 3: "rejected", 4: "shadow"}


def test_a_newer_candidate_supersedes_one_that_nobody_has_accepted() -> None:
    controller = started()
    controller.command(propose(0))
    controller.take()
    controller.command(propose(1))
    assert told(controller.take()) == [
        "3 candidate proposed",
        "3 validated gate.passed",
        "2 rejected superseded",
        "3 shadow gate.passed",
        "command.obeyed gate.passed",
    ]


def test_what_was_judged_by_a_champion_that_is_gone_is_rejected() -> None:
    controller = started(rules(shadow_labels=200))
    controller.command(propose(0))
    controller.word(word(controller, 2))
    controller.command(propose(1))
    controller.take()
    controller.score(score(200, 2, 0.5, "shadow", total=200))
    assert told(controller.take()) == [
        "1 retired replaced",
        "2 champion shadow.passed",
        "3 rejected champion.changed",
    ]
    controller.command(propose(2, parameters={"champion": {"version": 1}}))
    assert told(controller.take())[1] == "4 rejected gate.champion_changed"


def test_what_awaits_approval_falls_with_the_champion_that_judged_it() -> None:
    controller = promoted(rules(approval=True), approve=True)
    controller.command(propose(3))
    assert states(controller) == {1: "retired", 2: "champion", 3: "awaiting"}
    controller.word(word(controller, 2, FELL_BACK, "model.nonfinite"))
    assert told(controller.take())[-1] == "3 rejected champion.changed"


@pytest.mark.parametrize("role", ["shadow", "canary"])
def test_what_a_person_approved_goes_on_when_the_champion_changes_after_a_restart_too(role: str) -> None:
    asked = rules(approval=True, shadow_labels=10, canary_labels=10)
    controller = started(asked)
    controller.command(propose(0))
    controller.command(command("promote", 1, 2))
    controller.command(propose(2))
    controller.command(command("approve", 3, 3))
    if role == "canary":
        controller.word(word(controller, 3))
        controller.score(score(10, 3, 0.5, "shadow", total=10))
    again = Controller(asked, rebuild([*first(asked), *controller.take()], []))
    again.word(word(again, 2, FELL_BACK, "model.nonfinite"))
    assert states(again) == {1: "champion", 2: "rolled_back", 3: role}


COMPARED = {
    "the champion": ({"version": 2, "digest": digest_of(1_000)}, "gate.passed"),
    "its number alone": ({"version": 2}, "gate.passed"),
    "another version": ({"version": 1, "digest": digest_of(1_000)}, "gate.champion_changed"),
    "another artefact of that number": ({"version": 2, "digest": digest_of(9)}, "gate.champion_changed"),
    "an artefact alone": ({"digest": digest_of(9)}, "gate.champion_changed"),
    "no artefact": ({"version": 2, "digest": 7}, "gate.champion_changed"),
}


@pytest.mark.parametrize("case", COMPARED)
def test_evidence_must_compare_with_the_artefact_that_serves(case: str) -> None:
    compared, reason = COMPARED[case]
    controller = promoted()
    controller.command(propose(1, parameters={"champion": compared}))
    assert controller.take()[1].reason == reason


def test_evidence_against_a_champion_that_could_not_be_asked_proves_nothing() -> None:
    controller = promoted()
    controller.command(propose(1, parameters={"champion_problem": "artefact.missing"}))
    assert told(controller.take())[1] == "3 rejected gate.champion_unknown"


def test_a_champion_that_knows_nothing_needs_not_be_asked() -> None:
    controller = started()
    controller.command(
        propose(1, parameters={"champion": {}, "champion_problem": "no champion is announced"})
    )
    assert told(controller.take())[1] == "2 validated gate.passed"


def test_approval_waits_for_a_person_who_is_named() -> None:
    controller = started(rules(approval=True))
    controller.command(propose(0))
    assert told(controller.take())[2] == "2 awaiting approval.needed"
    controller.word(word(controller, 2))
    assert controller.take() == []
    controller.command(command("approve", 1))
    entries = controller.take()
    assert told(entries) == [
        "2 shadow approved",
        "command.obeyed approve.done",
        "1 retired replaced",
        "2 champion shadow.passed",
    ]
    assert (entries[0].actor, entries[0].command_offset, entries[1].detail["text"]) == ("ann", 1, "because")


def test_a_newer_candidate_takes_the_place_of_one_that_awaits_approval() -> None:
    controller = started(rules(approval=True))
    controller.command(propose(0))
    controller.command(propose(1))
    assert states(controller) == {1: "champion", 2: "rejected", 3: "awaiting"}


def test_a_person_rejects_what_awaits_and_what_is_on_trial() -> None:
    controller = started(rules(approval=True, canary_labels=100))
    controller.command(propose(0))
    controller.command(command("reject", 1, 2))
    assert states(controller)[2] == "rejected"
    controller.command(propose(2))
    controller.command(command("approve", 3, 3))
    controller.word(word(controller, 3))
    assert states(controller)[3] == "canary"
    controller.command(command("reject", 4))
    assert states(controller)[3] == "rolled_back"


def test_a_person_promotes_past_the_trial() -> None:
    controller = started(rules(shadow_labels=1_000))
    controller.command(propose(0))
    controller.take()
    controller.command(command("promote", 1, 2))
    assert told(controller.take()) == [
        "1 retired replaced",
        "2 champion by_hand",
        "command.obeyed promote.done",
    ]


def test_a_person_rolls_back_to_the_one_before_or_to_a_named_one() -> None:
    controller = promoted()
    controller.command(propose(1))
    controller.word(word(controller, 3))
    controller.take()
    controller.command(command("rollback", 2, 1))
    assert told(controller.take()) == [
        "3 rolled_back by_hand",
        "1 champion by_hand",
        "command.obeyed rollback.done",
    ]
    controller.command(command("rollback", 3, 3))
    controller.command(command("rollback", 4))
    assert states(controller) == {1: "rolled_back", 2: "champion", 3: "rolled_back"}


def test_nothing_goes_forward_while_frozen_and_all_does_afterwards() -> None:
    controller = started()
    controller.command(command("freeze", 0))
    controller.command(propose(1))
    assert states(controller) == {1: "champion", 2: "validated"}
    controller.command(command("promote", 2, 2))
    assert told(controller.take())[-1] == "command.refused controller.frozen"
    controller.command(command("unfreeze", 3))
    assert told(controller.take()) == ["command.obeyed controller.unfrozen", "2 shadow gate.passed"]


def test_a_frozen_controller_still_undoes() -> None:
    controller = promoted()
    controller.command(command("freeze", 1))
    controller.word(word(controller, 2, FELL_BACK, "model.nonfinite"))
    assert states(controller)[1] == "champion"


REFUSALS = {
    "loser of two": (command("reject", 9, 2, expected_sequence=1), "sequence.changed"),
    "another model": (command("approve", 9, 2, model_name="credit"), "model.unknown"),
    "no such version": (command("approve", 9, 77), "version.unknown"),
    "nothing awaits": (command("approve", 9), "version.unnamed"),
    "not awaiting": (command("approve", 9, 2), "state.wrong"),
    "the champion": (command("reject", 9, 1), "state.wrong"),
    "promote the champion": (command("promote", 9, 1), "state.wrong"),
    "never served": (command("rollback", 9, 2), "state.wrong"),
    "to itself": (command("rollback", 9, 1), "state.wrong"),
    "nobody before": (command("rollback", 9), "rollback.impossible"),
    "not frozen": (command("unfreeze", 9), "freeze.same"),
    "no evidence": (propose(9, b""), "evidence.invalid"),
    "broken evidence": (propose(9, BETTER[:-1]), "evidence.invalid"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_command_that_cannot_be_obeyed_is_refused_with_a_reason(case: str) -> None:
    asked, reason = REFUSALS[case]
    controller = started()
    controller.command(propose(0))
    controller.take()
    before = states(controller)
    assert controller.command(asked)
    (entry,) = controller.take()
    assert told([entry]) == [f"command.refused {reason}"]
    assert (entry.command_offset, bool(entry.detail["text"])) == (9, True)
    assert states(controller) == before


def test_of_two_who_saw_the_same_the_second_is_told_what_the_first_did() -> None:
    controller = started(rules(approval=True))
    controller.command(propose(0))
    seen = controller.state.sequence
    controller.command(command("approve", 1, 2, expected_sequence=seen, actor="ann"))
    controller.take()
    controller.command(command("reject", 2, 2, expected_sequence=seen, actor="bob"))
    (entry,) = controller.take()
    assert entry.reason == "sequence.changed"
    assert "version 2 became shadow by ann (approved)" in entry.detail["text"]


def test_a_command_is_obeyed_once_however_often_it_is_sent() -> None:
    controller = started()
    assert controller.command(propose(0, id="trigger-1"))
    controller.take()
    assert not controller.command(propose(1, id="trigger-1"))
    assert controller.take() == []


def test_training_is_the_retrainers_to_answer() -> None:
    controller = started()
    assert controller.command(command("train", 0))
    assert controller.take() == []
