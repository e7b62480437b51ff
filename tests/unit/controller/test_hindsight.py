"""What another policy would have decided: the same under the same policy, and otherwise what the log can know."""

from dataclasses import replace
from pathlib import Path

import pytest

from schemas import FOLDER
from services.cli.governing import version_rows
from services.cli.hindsight import History, in_order, rehearse, reigns, tell
from services.cli.reigns import Carried, When, champion_at, decided, parse_when
from services.cli.whatif import compared, rules_with
from services.controller.core.book import Rules
from services.controller.core.controller import Controller
from services.controller.core.records import ACCEPTED, Command, Score, Word
from services.controller.core.state import TRANSITION
from shared.contracts.pipeline import load_pipeline
from shared.errors import Refused
from shared.models.evidence import pack
from tests.unit.controller.makers import command, digest_of, evidence, history_of, propose, rules, score, told

SLIGHT = pack(evidence(0.5, 0.62, rows=600, seed=9))


def accepted(version: int, artefact: int, at: int) -> Word:
    return Word(ACCEPTED, version, digest_of(artefact), "inference-0", "accepted", at=at)


STORY: list[Score | Word | Command] = [
    score(100, 1, 0.69),
    propose(0, artefact=digest_of(2), at=1_101),
    accepted(2, 2, 1_102),
    score(200, 2, 0.5, total=100),
    propose(1, SLIGHT, artefact=digest_of(3), at=1_201),
    accepted(3, 3, 1_202),
    score(300, 3, 0.45, total=100),
    score(400, 3, 0.47, total=200),
]


def history(asked: Rules, story: list[Score | Word | Command]) -> History:
    """What the log holds once a controller of these rules has lived through the story."""
    fresh = Controller(asked)
    fresh.bootstrap(digest_of(1), 1_000)
    for each in story:
        tell(fresh, each)
    alarm = {"id": "a", "family": "performance", "sequence": 150, "triggers": True}
    return history_of(fresh.take(), story, [alarm])


def test_the_same_policy_decides_the_same_again() -> None:
    lived = history(rules(), STORY)
    entries, state, assumed = rehearse(lived, rules())
    assert told(entries) == told(lived.entries)
    assert assumed == set()
    assert state.champion is not None
    assert state.champion.number == 3


@pytest.mark.parametrize("begin", [150, 200, 250, 300])
def test_the_same_policy_decides_the_same_from_any_outcome_on(begin: int) -> None:
    lived = history(rules(), STORY)
    entries, _, _ = rehearse(lived, rules(), begin)
    rest = [entry for entry in lived.entries if entry.labeled_sequence >= begin]
    assert told(entries) == told(rest)


def test_a_stricter_gate_keeps_the_champion_that_the_slight_one_replaced() -> None:
    lived = history(rules(), STORY)
    said = compared(lived, rules(margin=0.2))
    assert [reign["version"] for reign in said["would"]] == [1, 2]
    assert [reign["version"] for reign in said["did"]] == [1, 2, 3]
    assert said["states"] == {"1": "retired", "2": "champion", "3": "rejected"}


def test_the_metric_that_followed_is_that_of_the_reign_and_says_where_it_is_from() -> None:
    lived = history(rules(), STORY)
    first, second, third = reigns(lived.entries, lived, "log_loss")
    assert (first.begin, first.end, first.value, first.source) == (-1, 100, 0.69, "scores as champion")
    assert (second.begin, second.end, second.value) == (100, 200, 0.5)
    assert (third.begin, third.end) == (200, -1)
    assert third.value == pytest.approx(0.46)


def test_a_laxer_policy_promotes_what_was_refused_by_what_the_evidence_says() -> None:
    lived = history(
        rules(margin=0.2), [each for each in STORY if not isinstance(each, Word) or each.version == 2]
    )
    said = compared(lived, rules())
    last = said["would"][-1]
    assert (last["version"], last["source"]) == (3, "scores as champion")
    unseen = [each for each in STORY if isinstance(each, Command) or getattr(each, "version", 0) < 3]
    said = compared(history(rules(margin=0.2), unseen), rules())
    last = said["would"][-1]
    assert (last["version"], last["source"]) == (3, "the gate's evidence, before it served")
    assert 0 < last["value"] < 1
    assert said["assumed_accepted"] == [3]
    assert [alarm["id"] for alarm in said["alarms"]] == ["a"]


def test_a_policy_that_asks_a_person_ends_where_nobody_was_asked() -> None:
    said = compared(history(rules(), STORY), rules(approval=True))
    assert said["states"] == {"1": "champion", "2": "rejected", "3": "awaiting"}


def test_a_range_ends_where_it_is_said() -> None:
    said = compared(history(rules(), STORY), rules(), "", "150")
    assert [reign["version"] for reign in said["would"]] == [1, 2]
    times = compared(history(rules(), STORY), rules(), "1970-01-01T00:03:20+00:00", "")
    assert times["from"] == 200


def test_a_policy_file_replaces_the_tables_that_it_has(tmp_path: Path) -> None:
    pipeline = load_pipeline(FOLDER / "fraud")
    file = tmp_path / "policy.toml"
    file.write_text('[policy.gate]\nmetric = "roc_auc"\nmargin = 0.01\n')
    made = rules_with(pipeline, file)
    assert (made.gate.metric, made.gate.margin, made.promotion) == (
        "roc_auc",
        0.01,
        pipeline.policy.promotion,
    )
    file.write_text("[gate]\nmargin = 0.02\n")
    assert rules_with(pipeline, file).gate.margin == 0.02


@pytest.mark.parametrize(
    "text", ["", "[policy.gate]\nmargin = -1\n", "[policy.gate]\nfoo = 1\n", "x =", "policy = 1"]
)
def test_a_policy_file_that_says_nothing_or_nonsense_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(Refused):
        rules_with(load_pipeline(FOLDER / "fraud"), file)


# Which version was champion at a time.


@pytest.mark.parametrize(("when", "version"), [("99", 1), ("100", 2), ("199", 2), ("200", 3), ("999", 3)])
def test_by_a_ledger_sequence_the_decision_before_it_counts(when: str, version: int) -> None:
    found = decided(history(rules(), STORY).entries, parse_when(when))
    assert found is not None
    assert found.version == version


def test_by_a_time_what_predictions_carry_comes_first_and_disagreement_is_said() -> None:
    entries = history(rules(), STORY).entries
    said = champion_at(entries, When(order_time=150_000), [])
    assert (said["version"], said["source"], said["agrees"]) == (2, "audit", True)
    carried = [Carried(1, "d1", 0, 100, 0, 7), Carried(2, "d2", 5, 149_000, 1, 8)]
    said = champion_at(entries, When(order_time=150_000), carried)
    assert (said["version"], said["digest"], said["source"], said["agrees"]) == (2, "d2", "predictions", True)
    said = champion_at(entries, When(order_time=150_000), carried[:1])
    assert (said["version"], said["decided"], said["agrees"]) == (1, 2, False)


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(Refused):
        parse_when("yesterday")


def test_versions_are_told_with_where_they_stand() -> None:
    _, state, _ = rehearse(history(rules(), STORY), rules())
    assert [(row["version"], row["state"], row["since"]) for row in version_rows(state)] == [
        (1, "retired", 100),
        (2, "retired", 200),
        (3, "champion", 200),
    ]


def test_manual_commands_are_heard_in_the_rehearsal_too() -> None:
    story = [*STORY, command("rollback", 7, at=1_500)]
    lived = history(rules(), story)
    entries, state, _ = rehearse(lived, rules())
    assert told(entries) == told(lived.entries)
    assert state.champion is not None
    assert state.champion.number == 2
    assert [e.version for e in entries if e.kind == TRANSITION and e.state == "champion"] == [1, 2, 3, 2]


def late_rollback() -> list[Score | Word | Command]:
    """Bob looks when version 2 serves, and asks when version 3 does."""
    return [*STORY, command("rollback", 7, at=1_500, expected_sequence=6)]


def test_who_came_too_late_then_comes_too_late_again() -> None:
    lived = history(rules(), late_rollback())
    entries, state, _ = rehearse(lived, rules())
    assert told(entries)[-1] == "command.refused sequence.changed"
    assert entries == lived.entries
    assert state.champion is not None
    assert state.champion.number == 3


def test_who_came_too_late_then_has_said_nothing_of_another_course() -> None:
    entries, state, _ = rehearse(history(rules(), late_rollback()), rules(margin=0.2))
    assert not [entry for entry in entries if entry.reason.startswith(("sequence.", "rollback."))]
    assert state.champion is not None
    assert state.champion.number == 2


def judged_by(number: int) -> list[Score | Word | Command]:
    """A third proposal, which compares with the champion of that version."""
    terms = {"champion": {"version": number, "digest": digest_of(number)}}
    return [*STORY, propose(2, artefact=digest_of(4), at=1_501, parameters=terms)]


def test_evidence_against_a_champion_that_was_gone_is_good_where_that_one_serves() -> None:
    lived = history(rules(), judged_by(2))
    assert lived.entries[-1].reason == "gate.champion_changed"
    same, _, _ = rehearse(lived, rules())
    assert same == lived.entries
    _, state, assumed = rehearse(lived, rules(margin=0.2))
    assert (state.versions[4].state, assumed) == ("champion", {4})


def test_evidence_against_the_champion_of_then_stands_where_another_serves() -> None:
    lived = history(rules(), judged_by(3))
    strict, _, _ = rehearse(lived, rules(margin=0.2))
    assert (lived.entries[-1].reason, strict[-1].reason) == ("gate.passed", "gate.passed")


def test_a_version_that_workers_were_asked_about_in_vain_is_not_assumed_to_be_accepted() -> None:
    lived = history(rules(), STORY[:2])
    entries, _, assumed = rehearse(lived, rules())
    assert (entries, assumed) == (lived.entries, set())


def test_a_word_stands_where_it_was_decided_upon_whenever_it_was_said() -> None:
    step: list[Score | Word | Command] = [
        propose(0, artefact=digest_of(2), at=1_050),
        score(100, 2, 0.5, "shadow", total=100),
        score(200, 2, 0.5, "shadow", total=200),
        accepted(2, 2, 1_150),
        command("freeze", 1, at=1_120),
    ]
    lived = history(rules(shadow_labels=100), step)
    assert [e.labeled_sequence for e in lived.entries if e.state == "champion"] == [-1, 200]
    entries, _, _ = rehearse(lived, rules(shadow_labels=100))
    assert entries == lived.entries


def test_a_figure_that_came_late_is_told_in_its_turn() -> None:
    story: list[Score | Word | Command] = [
        score(200, 1, 0.6),
        replace(score(100, 1, 0.5), at=1_201),
        propose(0, artefact=digest_of(2), at=1_202),
    ]
    lived = history(rules(), story)
    assert [said for _, said in in_order(lived)] == story


def test_words_keep_their_order() -> None:
    story: list[Score | Word | Command] = [
        score(100, 1, 0.6),
        propose(0, artefact=digest_of(2), at=1_050),
        accepted(9, 9, 1_250),
        accepted(2, 2, 1_260),
        score(200, 2, 0.5),
    ]
    lived = history(rules(), story)
    assert [said for _, said in in_order(lived)] == story
