"""Feedback, drift, retrainer and controller die at every stage of retrainings; what is learnt stays the same.

`MILLRACE_CHAOS_RUNS` (default 2) is the number of random runs: the even ones in lockstep, which must tell the
undisturbed run's story, the odd ones live, of which the laws must hold.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from services.cli.story import Story
from services.stack.endpoints import Endpoints
from tests.chaos.loop_laws import Left, Row, breaches
from tests.chaos.loop_run import CHANGE, SERVICES, STAGES, Told, blows, run

RUNS = int(os.environ.get("MILLRACE_CHAOS_RUNS", "2"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, stack: Endpoints) -> Path:
    """Where the stream and the declarations lie."""
    assert stack.bootstrap_servers
    return tmp_path_factory.mktemp("storm")


@pytest.fixture(scope="module")
def mark() -> str:
    """What the pipelines of this session have in their names."""
    return os.urandom(3).hex()


@pytest.fixture(scope="module")
def calm(folder: Path, mark: str) -> Told:
    """The run that nothing disturbs."""
    told = run(folder, f"calm-{mark}")
    print(f"calm: {told.seconds:.0f} s, {_short(told)}")
    return told


def _short(told: Told) -> str:
    return f"{told.story.counts}, {len(told.left.datasets)} datasets, {len(told.left.ledger)} outcomes"


@pytest.mark.chaos
@pytest.mark.timeout(1_800)
def test_undisturbed_the_laws_hold(calm: Told) -> None:
    assert breaches(calm.left) == []
    states = {each["state"] for each in calm.left.transitions}
    assert states >= {"candidate", "validated", "champion", "retired"}, states
    assert any(each.what == "alarm" and each.detail["triggers"] for each in calm.story.marks)
    _complete(calm)


@pytest.mark.chaos
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(0, RUNS, 2))
def test_kills_in_lockstep_change_nothing(folder: Path, mark: str, calm: Told, seed: int) -> None:
    told = run(folder, f"storm-{mark}-{seed}", blows(seed))
    _report(seed, told)
    assert breaches(told.left) == []
    _complete(told)
    assert told.left.ledger == calm.left.ledger
    assert _told(told.story) == _told(calm.story)
    # Scores depend on the batch that a row was in by their last bits; what was decided does not.
    assert told.story.figures == pytest.approx(calm.story.figures, abs=1e-6)
    assert [at for at, _ in told.story.trail] == [at for at, _ in calm.story.trail]
    assert [value for _, value in told.story.trail] == pytest.approx([value for _, value in calm.story.trail])


@pytest.mark.chaos
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(1, RUNS, 2))
def test_kills_of_a_live_loop_break_no_law(folder: Path, mark: str, seed: int) -> None:
    told = run(folder, f"gale-{mark}-{seed}", blows(seed), lockstep=False)
    _report(seed, told)
    assert breaches(told.left) == []
    _complete(told)


def _report(seed: int, told: Told) -> None:
    hit = ", ".join(f"{b.service}@{b.stage}+{b.delay_s:.1f}" for b in told.killed)
    print(f"seed {seed}: {told.seconds:.0f} s, {len(told.killed)} kills ({hit}), {_short(told)}")
    assert len(told.killed) >= len(STAGES)


def _complete(told: Told) -> None:
    """Every event has its outcome, and trainings led to versions."""
    answered = [row.event for row in told.left.ledger if row.role != "shadow"]
    assert len(answered) == len(set(answered)) == CHANGE.events
    assert sum(each["state"] == "validated" for each in told.left.transitions) >= 1


def _told(story: Story) -> list[tuple[str, int | None, int, int | None, str]]:
    return [(m.what, m.index, m.sequence, m.version, m.text) for m in story.marks]


@pytest.mark.parametrize("seeds", [(0, 2), (1, 3)])
def test_two_seeds_of_a_kind_hit_every_service_at_every_stage(seeds: tuple[int, int]) -> None:
    hit = {(b.service.partition("-")[0], b.stage) for seed in seeds for b in blows(seed)}
    assert hit == {(service, stage) for service in SERVICES for stage in STAGES}


# The laws themselves: each sees what it is there for.

TRANSITIONS = [
    (1, "", "champion", -1),
    (2, "", "candidate", 4),
    (2, "candidate", "validated", 4),
    (1, "champion", "retired", 4),
    (2, "validated", "champion", 4),
]


def lawful() -> Left:
    """One retraining that ends in a promotion."""
    return Left(
        runs=[
            {"id": "labels-9", "step": step, "detail": "m2" if step == "done" else ""}
            for step in ("trigger", "train", "done")
        ],
        commands=[(4, {"id": "propose-labels-9", "kind": "propose", "model_digest": "m2"})],
        audit=[
            {"kind": "model.transition", "model_version": v, "previous": p, "state": s, "command_offset": c}
            for v, p, s, c in TRANSITIONS
        ],
        models=[
            (2 * at, {"version": v, "state": s, "sequence": at + 1})
            for at, (v, _, s, _) in enumerate(TRANSITIONS)
        ],
        ledger=[Row(at, f"e{at}", "champion", "LABEL") for at in range(3)],
        datasets={"d": [Row(at, f"e{at}", "champion", "LABEL") for at in range(1, 3)]},
        differences={"d": []},
    )


def test_a_lawful_run_breaks_nothing() -> None:
    assert breaches(lawful()) == []


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"runs": [*lawful().runs, lawful().runs[-1]]}, "ended 2 times"),
        ({"runs": [*lawful().runs, lawful().runs[0]]}, "began 2 times"),
        ({"runs": lawful().runs[:-1]}, "ended 0 times"),
        ({"commands": []}, "proposed 0 times"),
        ({"commands": [*lawful().commands, (5, lawful().commands[0][1])]}, "proposed 2 times"),
        ({"commands": [(4, {**lawful().commands[0][1], "model_digest": "m3"})]}, "another model"),
        ({"commands": [(5, lawful().commands[0][1])]}, "0 versions came of the proposal at 5"),
        ({"datasets": {"d": [Row(1, "e1", "champion", "LABEL"), Row(2, "e1", "canary", "LABEL")]}}, "e1 2 times"),
        ({"datasets": {"d": [Row(1, "e1", "champion", "LABEL"), Row(3, "e3", "champion", "LABEL")]}}, "holes"),
        ({"differences": {"d": ["segment 0 differs"]}}, "segment 0 differs"),
        ({"audit": [*lawful().audit, lawful().audit[-1]]}, "went from"),
        ({"models": [*lawful().models, lawful().models[-1]]}, "announced"),
        ({"models": [lawful().models[at] for at in (0, 1, 2, 4)]}, "versions [1, 2] are champions"),
        (
            {"models": [*lawful().models[:4], (9, {"version": 3, "state": "candidate", "sequence": 5})]},
            "still no champion",
        ),
        ({"ledger": lawful().ledger[1:]}, "holes or repeats"),
        ({"ledger": [*lawful().ledger, Row(3, "e0", "champion", "LABEL")]}, "stands 2 times"),
    ],
)  # fmt: skip
def test_a_breach_is_seen(wrong: dict[str, object], word: str) -> None:
    found = breaches(replace(lawful(), **wrong))  # type: ignore[arg-type]
    assert any(word in each for each in found), found
