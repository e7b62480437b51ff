"""Steps of a retraining: each once, whatever is killed; one proposal a trigger; failures end the run, not more."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from services.retrainer.core.steps import run_slug, step_key
from services.retrainer.core.triggers import END, Trigger
from services.retrainer.process import StepFailed
from services.retrainer.propose import Proposal
from services.retrainer.steps import Means
from shared.contracts.pipeline import parse_pipeline
from shared.errors import Retry
from shared.models.evidence import unpack
from shared.models.loading import load_model
from shared.models.manifest import Mlp
from tests.unit.retrainer.loops import (
    Fuse,
    InlineTrainer,
    Killed,
    Loop,
    declared,
    labels,
    policy_of,
    rows_of,
    texts_of,
)

ROWS = 300


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    pipeline = declared()
    return Loop(tmp_path, pipeline, rows_of(pipeline, ROWS))


def test_a_run_ends_in_one_proposal_that_can_be_judged_and_loaded(loop: Loop) -> None:
    trigger = labels(ROWS - 1)
    assert loop.runner().run(trigger) == "done"
    assert loop.journal.told(trigger.id) == [
        ("trigger", "started"),
        ("dataset", "done"),
        ("statistics", "done"),
        ("train", "started"),
        ("train", "done"),
        ("evaluate", "done"),
        ("package", "done"),
        ("propose", "done"),
        ("done", "done"),
    ]
    [proposal] = loop.proposals.sent
    assert (proposal.id, proposal.model, proposal.at) == (f"propose-{trigger.id}", "small", 299_000)
    evidence = unpack(proposal.evidence)
    assert evidence.rows == ROWS // 5
    assert evidence.sequences[-1] == ROWS - 1
    assert evidence.slice_names == ("high",)
    assert evidence.source_names == ("bank", "shop")
    assert (evidence.champion == 0.5).all()
    truth = evidence.labels == 1
    assert float(((evidence.candidate >= 0.5) == truth).mean()) > 0.85
    artefact = loop.store.get(proposal.digest)
    pipeline = loop.pipeline
    model = load_model(artefact, pipeline.feature_fingerprint, pipeline.feature_names)
    dataset = model.manifest.dataset
    assert dataset["cut_off"] == ROWS - 1
    assert dataset["trained_until"] == ROWS - ROWS // 5 - 1
    assert dataset["reference"]["names"] == ["a", "b", "c"]  # type: ignore[index,call-overload]
    assert model.manifest.created_from["trigger"] == trigger.id
    parameters = json.loads(json.dumps(proposal.parameters))
    assert parameters["sequence"] == ROWS - 1
    assert parameters["figures"]["all"]["candidate"]["log_loss"] < 0.5
    assert parameters["champion"]["version"] == 1
    assert list((loop.folder / "board" / trigger.id).glob("events.out.tfevents.*"))


def test_the_same_trigger_again_does_nothing(loop: Loop) -> None:
    assert loop.runner().run(labels(199)) == "done"
    told = list(loop.journal.steps)
    assert loop.runner().run(labels(199)) == "done"
    assert loop.journal.steps == told
    assert len(loop.proposals.sent) == 1


def test_another_trigger_on_the_same_rows_trains_nothing_anew(loop: Loop) -> None:
    loop.runner().run(labels(199))
    loop.done.clear()
    assert loop.runner().run(Trigger("by-hand", "command", 199, 5)) == "done"
    assert loop.done == ["package"]
    assert ("train", "cached") in loop.journal.told("by-hand")
    assert [each.id for each in loop.proposals.sent] == ["propose-labels-199", "propose-by-hand"]


def test_other_code_does_all_again(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    loop.runner().run(labels(199))
    loop.done.clear()
    for module in ("steps", "datasets"):
        monkeypatch.setattr(f"services.retrainer.{module}.code_digest", lambda: "f" * 64)
    loop.runner().run(Trigger("by-hand", "command", 199, 5))
    assert loop.done == ["train", "evaluate", "package"]


def test_a_kill_anywhere_leaves_one_proposal_and_one_of_each_step(tmp_path: Path) -> None:
    pipeline = declared()
    batch = rows_of(pipeline, ROWS)
    clean = Loop(tmp_path / "clean", pipeline, batch)
    clean.fuse.left = 1_000
    clean.runner().run(labels(ROWS - 1))
    sparks = 1_000 - clean.fuse.left
    assert sparks >= 20
    for at in range(1, sparks + 1):
        loop = Loop(tmp_path / str(at), pipeline, batch)
        loop.fuse.left = at
        with pytest.raises(Killed):
            loop.runner().run(labels(ROWS - 1))
        assert loop.runner().run(labels(ROWS - 1)) == "done", at
        [proposal] = loop.proposals.sent
        assert proposal.evidence == clean.proposals.sent[0].evidence
        assert proposal.digest == clean.proposals.sent[0].digest
        finished = [step for step, state in loop.journal.told(f"labels-{ROWS - 1}") if state != "started"]
        assert finished == ["dataset", "statistics", "train", "evaluate", "package", "propose", "done"], at
        assert loop.done.count("train") <= 2


def test_what_was_proposed_before_a_kill_stands_under_another_champion(loop: Loop) -> None:
    """The run's end names the model that was proposed, though judging it anew would package another."""
    trigger = labels(ROWS - 1)
    real = loop.proposals.send

    def killed(proposal: Proposal) -> None:
        real(proposal)
        raise Killed

    loop.proposals.send = killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        loop.runner().run(trigger)
    loop.outlook._champion = {
        "digest": loop.proposals.sent[0].digest,
        "version": 2,
        "sequence": 2,
        "offset": 9,
    }
    assert loop.runner().run(trigger) == "done"
    [proposal] = loop.proposals.sent
    ends = [step.detail["digest"] for step in loop.journal.steps if step.step in ("propose", "done")]
    assert ends == [proposal.digest, proposal.digest]
    assert loop.journal.proposed() == proposal.digest


def test_the_ledgers_end_is_fixed_when_the_run_begins(loop: Loop) -> None:
    trigger = Trigger("by-hand", "command", END, 5)
    loop.fuse.left = 4  # behind the trigger's record, before the dataset's
    with pytest.raises(Killed):
        loop.runner().run(trigger)
    loop.ledger.batch = rows_of(loop.pipeline, ROWS + 100)
    loop.fuse.left = 1_000
    assert loop.runner().run(trigger) == "done"
    assert loop.proposals.sent[0].parameters["sequence"] == ROWS - 1


def test_rows_that_teach_nothing_are_skipped(tmp_path: Path) -> None:
    pipeline = declared()
    few = Loop(tmp_path / "few", pipeline, rows_of(pipeline, 59))
    assert few.runner().run(labels(58)) == "skipped"
    assert few.journal.steps[-1].detail == {"reason": "rows.few"}
    single = rows_of(pipeline, 100, label_class=np.zeros(100, np.int64))
    one = Loop(tmp_path / "one", pipeline, single)
    assert one.runner().run(labels(99)) == "skipped"
    assert one.journal.steps[-1].detail == {"reason": "class.single"}
    assert few.proposals.sent == one.proposals.sent == []


@pytest.mark.parametrize(
    ("rows", "asked", "detail"),
    [
        (0, Trigger("c", "command", END, 5), "has no outcome yet; ask again when there are some"),
        (0, Trigger("c", "command", 0, 5), "has no outcome yet; ask again when there are some"),
        (100, Trigger("c", "command", 100, 5), "ends at 99; ask for a sequence and a since up to that"),
        (100, Trigger("c", "command", 2**70, 5), "ends at 99; ask for a sequence and a since up to that"),
        (100, Trigger("c", "command", 9, 5, 2**70), "ends at 99; ask for a sequence and a since up to that"),
    ],
)
def test_a_trigger_of_rows_that_the_ledger_does_not_hold_fails(
    tmp_path: Path, rows: int, asked: Trigger, detail: str
) -> None:
    pipeline = declared()
    loop = Loop(tmp_path, pipeline, rows_of(pipeline, rows))
    assert loop.runner().run(asked) == "failed"
    [end] = loop.journal.steps
    assert end.detail == {"reason": "refused", "detail": f"the ledger {detail}"}
    assert (end.step, end.sequence) == ("failed", rows - 1)
    assert loop.journal.triggers() == []


def test_a_step_that_fails_ends_the_run_and_the_next_run_goes_on(loop: Loop) -> None:
    class Slow:
        def ask(self, job: object, limit_s: float) -> None:  # noqa: ARG002
            raise StepFailed("time", f"more than {limit_s:g} s")

        def close(self) -> None: ...

    inline, loop.trainer = loop.trainer, Slow
    assert loop.runner().run(labels(199)) == "failed"
    assert loop.journal.told("labels-199")[-2:] == [("train", "failed"), ("failed", "done")]
    assert loop.journal.steps[-1].detail == {"reason": "time", "detail": "more than 60 s"}
    loop.trainer = inline
    assert loop.runner().run(labels(199)) == "failed"  # a trigger runs once
    assert loop.runner().run(labels(299)) == "done"


@pytest.mark.parametrize("folder", ["kept", "artefacts"])
def test_a_run_goes_on_when_a_store_that_was_away_is_back(loop: Loop, folder: str) -> None:
    """Away before the job: neither is the run over, nor does the champion know nothing."""
    place, away, inline = loop.folder / folder, loop.folder / "away", loop.trainer

    class Late:
        def ask(self, job: dict[str, Any], limit_s: float) -> Any:
            if job["do"] == "evaluate" and not away.exists():
                place.rename(away)
            return inline().ask(job, limit_s)

        def close(self) -> None: ...

    loop.trainer = Late
    with pytest.raises(Retry):
        loop.runner().run(labels(199))
    shutil.rmtree(place, ignore_errors=True)
    away.rename(place)
    loop.trainer = inline
    assert loop.runner().run(labels(199)) == "done"
    assert loop.proposals.sent[0].parameters["champion_problem"] == ""
    assert [state for step, state in loop.journal.told("labels-199") if step == "train"] == [
        "started",
        "done",
    ]


def test_a_step_begins_once_however_often_it_is_tried(loop: Loop) -> None:
    class Away:
        def ask(self, job: object, limit_s: float) -> None:  # noqa: ARG002
            raise Retry("the store is away")

        def close(self) -> None: ...

    inline, loop.trainer = loop.trainer, Away
    for _ in range(3):
        with pytest.raises(Retry):
            loop.runner().run(labels(199))
    loop.trainer = inline
    assert loop.runner().run(labels(199)) == "done"
    assert loop.journal.told("labels-199").count(("train", "started")) == 1


def test_training_is_told_its_threads_and_device(loop: Loop) -> None:
    """They may change last digits: another number of threads is another result."""
    jobs: list[dict[str, Any]] = []

    class Telling(InlineTrainer):
        def ask(self, job: dict[str, Any], limit_s: float) -> Any:
            jobs.append(job)
            return super().ask(job, limit_s)

    loop.trainer = lambda: Telling(loop.fuse, loop.done)
    loop.runner().run(labels(199))
    loop.means = Means(threads=2, device="cpu")
    loop.runner().run(Trigger("by-hand", "command", 199, 5))
    told = [(job["threads"], job["device"]) for job in jobs if job["do"] == "train"]
    assert told == [(1, "auto"), (2, "cpu")]
    made = loop.store.get(loop.proposals.sent[1].digest).manifest.created_from
    assert (made["threads"], made["device"]) == (2, "cpu")


def test_declared_categories_are_embedded_and_served(tmp_path: Path) -> None:
    texts = texts_of(categories="\ncategories = 4", model='architecture = "mlp"\nhidden = [8]')
    pipeline = parse_pipeline(texts, "small", "small")
    codes = np.random.default_rng(3).integers(0, 4, 400)
    more: Any = {"features.c": codes.astype(np.float64), "label_class": (codes % 2).astype(np.int64)}
    loop = Loop(tmp_path, pipeline, rows_of(pipeline, 400, **more))
    assert loop.runner().run(labels(399)) == "done"
    found = loop.proposals.sent[0]
    assert (found.parameters["kind"], found.parameters["architecture"]) == ("torch", "mlp")
    made = loop.store.get(found.digest)
    assert isinstance(made.manifest.architecture, Mlp)
    [category] = made.manifest.architecture.categorical
    assert (category.input, category.values) == (2, 4)


def test_classes_are_weighed_alike_where_that_is_declared(tmp_path: Path) -> None:
    scores: dict[tuple[str, str], float] = {}
    for retrain in ("", "balance = true"):
        pipeline = parse_pipeline(texts_of(kinds=("torch", "gbt"), retrain=retrain), "small", "small")
        assert policy_of(pipeline).balance is bool(retrain)
        batch = rows_of(pipeline, 400)
        rare = batch["label_class"].array & (np.arange(400) % 5 == 0)
        loop = Loop(tmp_path / str(len(scores)), pipeline, rows_of(pipeline, 400, label_class=rare))
        assert loop.runner().run(labels(399)) == "done"
        said = loop.proposals.sent[0].parameters
        best = {"kind": said["kind"], "window": said["window"], "metrics": said["metrics"]}
        tried: Any = [best, *cast("list[Any]", said["others"])]
        for each in tried:
            if each["window"] == "last":
                scores[each["kind"], retrain] = each["metrics"]["log_loss"]
    for kind in ("linear", "torch", "gbt"):
        assert scores[kind, "balance = true"] > scores[kind, ""]  # what is weighed is no probability


def test_three_classes_carry_a_probability_a_class(tmp_path: Path) -> None:
    pipeline = declared(("low", "mid", "high"), ("torch", "gbt"))
    loop = Loop(tmp_path, pipeline, rows_of(pipeline, ROWS))
    assert loop.runner().run(labels(ROWS - 1)) == "done"
    evidence = unpack(loop.proposals.sent[0].evidence)
    assert evidence.classes == 3
    assert evidence.candidate.shape == (ROWS // 5, 3)
    assert np.allclose(evidence.champion, 1 / 3)


def test_the_champion_is_judged_on_rows_that_it_did_not_learn_from(loop: Loop) -> None:
    loop.runner().run(labels(249))
    first = loop.proposals.sent[0]
    loop.outlook._champion = {"digest": first.digest, "version": 2, "sequence": 2, "offset": 1}
    loop.runner().run(labels(ROWS - 1))
    second = loop.proposals.sent[1]
    until = first.parameters["trained_until"]
    assert until == 199
    evidence = unpack(second.evidence)
    assert evidence.sequences[0] == 240 > until
    assert second.parameters["unseen"] is True
    assert loop.outlook.asked == ["", first.digest]
    assert not (evidence.champion == 0.5).any()


def test_a_champion_that_cannot_be_asked_knows_nothing(loop: Loop) -> None:
    loop.outlook._champion = {"digest": "0" * 64, "version": 2, "sequence": 2, "offset": 1}
    assert loop.runner().run(labels(199)) == "done"
    proposal = loop.proposals.sent[0]
    assert "nothing whole" in str(proposal.parameters["champion_problem"])
    assert (unpack(proposal.evidence).champion == 0.5).all()


def test_keys_follow_from_all_that_goes_in() -> None:
    key = step_key("train", ["d"], "code", {"seed": 0})
    assert key == step_key("train", ["d"], "code", {"seed": 0})
    others = {
        step_key("evaluate", ["d"], "code", {"seed": 0}),
        step_key("train", ["e"], "code", {"seed": 0}),
        step_key("train", ["d"], "other", {"seed": 0}),
        step_key("train", ["d"], "code", {"seed": 1}),
    }
    assert len(others | {key}) == 5
    with pytest.raises(ValueError, match="JSON"):
        step_key("train", [float("nan")], "code", {})


def test_a_runs_id_becomes_a_file_name_of_its_own() -> None:
    names = {run_slug(each) for each in ("a/b", "a_b", "../etc", ".", "", "a b", "x" * 300)}
    assert len(names) == 7
    assert not any("/" in name or name.startswith(".") for name in names)


def test_fuse_is_real() -> None:
    with pytest.raises(Killed):
        Fuse(1).spark()
