"""The unit over topics in memory: what it writes, what it turns away, lockstep, and kills."""

import json
from dataclasses import replace

import pytest

from services.controller.core.records import ACCEPTED, Command, Word
from tests.unit.controller.makers import command, digest_of, propose, rules, score, told
from tests.unit.controller.worlds import INPUTS, REPLAYS, World, replay_record


def accepted(version: int, digest: str) -> Word:
    return Word(ACCEPTED, version, digest, "inference-0", "accepted")


def test_the_first_step_lets_the_untrained_model_serve() -> None:
    world = World(rules())
    world.step()
    (said,) = world.announced()
    assert (said.version, said.sequence, said.state, said.reason) == (1, 1, "champion", "bootstrap")
    world.settle()
    assert len(world.announced()) == 1


def test_decisions_stand_on_both_topics_in_one_order() -> None:
    world = World(rules())
    world.tell(propose(0))
    world.settle()
    world.tell(accepted(2, digest_of(1_000)))
    world.settle()
    entries = [entry for entry in world.entries() if entry.sequence > 0]
    assert [(said.version, said.state, said.sequence) for said in world.announced()] == [
        (entry.version, entry.state, entry.sequence) for entry in entries
    ]
    assert told(entries)[-2:] == ["1 retired replaced", "2 champion shadow.passed"]
    proof = {entry.evidence for entry in entries if entry.version == 2 and entry.command_offset == 0}
    assert len(proof) == 1
    assert len(proof.pop()) == 64


def test_a_proposal_and_the_acceptance_may_come_in_one_poll() -> None:
    world = World(rules())
    world.tell(propose(0), accepted(2, digest_of(1_000)))
    world.step()
    assert [said.state for said in world.announced()][-2:] == ["retired", "champion"]


GARBAGE: dict[str, tuple[bytes | Command | None, str]] = {
    "no bytes": (b"", "command.broken"),
    "json": (b'{"kind": "promote"}', "command.broken"),
    "another schema": (b"\0\0\0\0\x63abcdef", "command.broken"),
    "cut short": (b"\0\0\0\0\x01\x06abc", "command.broken"),
    "a tombstone": (None, "command.broken"),
    "unknown kind": (command("explode", 0), "command.unknown"),
    "no id": (command("freeze", 0, id=""), "command.invalid"),
    "endless id": (command("freeze", 0, id="x" * 1_000), "command.invalid"),
    "no digest": (propose(0, artefact="../../etc"), "command.invalid"),
    "infinite terms": (propose(0, parameters={"row_seconds": float("inf")}), "command.invalid"),
    "endless terms": (propose(0, parameters={"note": "x" * 70_000}), "command.invalid"),
    "terms without a ground": (
        propose(0, parameters={"note": json.loads("[" * 200 + "]" * 200)}),
        "command.invalid",
    ),
}


@pytest.mark.parametrize("case", GARBAGE)
def test_what_is_no_command_is_a_dead_letter_and_the_champion_stays(case: str) -> None:
    said, reason = GARBAGE[case]
    world = World(rules())
    world.settle()
    if isinstance(said, Command):
        world.tell(said)
    else:
        world.logs[INPUTS.commands.topic].values.append(said)
    world.tell(command("freeze", 1))
    world.settle()
    (letter,) = world.dead
    assert (letter.reason, letter.offset, letter.topic) == (reason, 0, INPUTS.commands.topic)
    assert told(world.entries())[-1] == "command.obeyed controller.frozen"
    assert [said.state for said in world.announced()] == ["champion"]


@pytest.mark.parametrize("character", ["x", "\u4e2d"])
def test_what_was_decided_on_a_wordy_proposal_is_read_again_after_a_kill(character: str) -> None:
    world = World(rules())
    world.tell(propose(0, parameters={"note": character * 40_000}))
    world.settle()
    before = world.unit.digest()
    world.kill()
    assert world.unit.digest() == before
    assert told(world.entries())[-1] == "command.obeyed gate.passed"


def test_a_proposal_whose_terms_no_record_can_hold_is_declined() -> None:
    world = World(rules())
    world.tell(propose(0, parameters={"note": "\U0001f600" * 60_000}))
    world.settle()
    world.kill()
    assert told(world.entries())[-1] == "command.refused proposal.size"
    assert world.dead == []


def test_records_of_others_on_the_audit_are_passed_over() -> None:
    world = World(rules())
    world.logs[INPUTS.audit.topic].values += [None, b"", b"garbage that is long enough"]
    world.tell(replace(accepted(2, digest_of(9)), kind="something.else"))
    world.settle()
    assert len(world.entries()) == 1
    assert world.dead == []


# Lockstep.


def stepping() -> World:
    world = World(rules())
    world.settle()
    world.logs[REPLAYS].values.append(replay_record("STEP"))
    world.step()
    return world


def test_within_a_step_it_only_gathers_and_commits_nothing_of_it() -> None:
    world = stepping()
    before = dict(world.committed)
    world.tell(propose(0), score(100, 1, 0.5))
    world.step()
    world.step()
    assert len(world.announced()) == 1
    assert world.committed == before


def test_within_a_step_no_input_waits_however_much_was_gathered_of_it() -> None:
    world = stepping()
    world.tell(*[score(100 + at, 1, 0.5) for at in range(5)])
    world.step()
    assert not any(world.unit.held().values()), "the loop would pause a topic whose end REST asks for"
    world.logs[REPLAYS].values.append(replay_record("REST"))
    world.step()
    world.unit.confirm(world.unit.asks() or {})
    world.step()
    assert world.committed[INPUTS.scores.topic] == 5


def test_at_rest_it_folds_what_was_gathered_once_it_is_known_to_be_all() -> None:
    world = stepping()
    world.tell(propose(0))
    world.step()
    world.tell(score(100, 1, 0.5))  # written before REST, read after it
    world.logs[REPLAYS].values.append(replay_record("REST"))
    world.step({REPLAYS: 1})
    asked = world.unit.asks()
    assert asked is not None
    assert len(world.announced()) == 1
    world.step({INPUTS.scores.topic: 1})
    assert world.unit.asks() != asked
    world.unit.confirm(asked)
    world.step({})
    assert len(world.announced()) == 1, "what was confirmed is not what was read"
    world.unit.confirm(world.unit.asks() or {})
    world.step({})
    entries = world.entries()
    assert told(entries)[1] == "2 candidate proposed"
    assert entries[1].labeled_sequence == 100, "figures come before commands"
    assert world.unit.asks() is None


def test_between_two_steps_it_folds_as_records_come() -> None:
    world = stepping()
    world.logs[REPLAYS].values.append(replay_record("REST"))
    world.step()
    world.unit.confirm(world.unit.asks() or {})
    world.step()
    world.tell(propose(0))
    world.step()
    assert len(world.announced()) > 1


def test_a_replay_that_died_within_a_step_holds_nobody_for_ever() -> None:
    world = stepping()
    world.tell(propose(0))
    world.step(now_ms=10_000)
    assert len(world.announced()) == 1
    world.step(now_ms=12_000)
    assert len(world.announced()) > 1


def test_nothing_is_folded_before_the_replays_are_known() -> None:
    world = World(rules())
    world.unit.at_end(REPLAYS, False)
    world.tell(propose(0))
    world.step()
    assert len(world.announced()) == 1
    world.unit.at_end(REPLAYS, True)
    world.step()
    assert len(world.announced()) > 1


@pytest.mark.parametrize("saved", [False, True])
def test_a_kill_within_a_step_reads_again_what_was_gathered(saved: bool) -> None:
    world = stepping()
    world.tell(propose(0))
    world.step()
    if saved:
        world.save()
    world.kill()
    world.step()
    assert len(world.announced()) == 1
    world.logs[REPLAYS].values.append(replay_record("REST"))
    world.step()
    world.unit.confirm(world.unit.asks() or {})
    world.step()
    assert told(world.entries())[-1] == "command.obeyed gate.passed"


def test_a_kill_before_the_commit_decides_the_same_again() -> None:
    world = World(rules())
    world.settle()
    world.tell(propose(0))
    world.step(commit=False)
    assert len(world.announced()) == 1
    world.settle()
    assert [said.version for said in world.announced()] == [1, 2, 2, 2]
    world.kill()
    world.tell(propose(1, id="propose-0"))
    world.settle()
    assert [said.version for said in world.announced()] == [1, 2, 2, 2]
