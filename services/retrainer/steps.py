"""One retraining, step by step, each once: what was done before a kill is found again and not done anew.

The order, the same in docs/retraining.md:

1. the trigger is written on runs.v1 with the ledger position it stands for; from then on that is fixed,
2. commands.v1 is searched for `propose-<run>`: what was proposed before a kill stands, and the run goes to 5,
3. dataset, statistics, train, evaluate, package: the result of each is kept under its key (inputs, code,
   parameters), then told on runs.v1; a result that is kept already is told as `cached`,
4. `propose-<run>` is sent to commands.v1,
5. propose is told on runs.v1, and `done`, `failed` or `skipped` ends the run; only then is the trigger's own
   record acknowledged.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import JsonValue

from services.retrainer.code import code_digest
from services.retrainer.core.ledger import learnable, wanted_rows
from services.retrainer.core.segments import ledger_rows, unseal
from services.retrainer.core.statistics import anomalies
from services.retrainer.core.steps import run_slug, step_key
from services.retrainer.core.triggers import Trigger, resolved, unheld
from services.retrainer.datasets import Recipe, build, sealed
from services.retrainer.kept import Kept
from services.retrainer.ledger import Ledger
from services.retrainer.process import StepFailed, Trainer
from services.retrainer.propose import Proposal, Proposals, proposal_id
from services.retrainer.runs import Journal, Step, told
from shared.contracts.pipeline import Pipeline
from shared.contracts.policies import RetrainPolicy
from shared.contracts.tables import ExpressionFeature
from shared.errors import Refused

LEAST_JUDGED = 30
"""Validation rows behind the champion's training that are enough to judge on, whatever the gate asks for."""


class Outlook(Protocol):
    """What a run asks of the rest of the loop."""

    def champion(self, after: str) -> dict[str, JsonValue]:
        """The champion as models.v1 has it: digest, version, sequence, offset; empty where there is none.

        `after` is what was proposed last (empty for nothing): the controller is given a moment to decide on it,
        since evidence against a champion of before is worth nothing.
        """
        ...

    def since(self, sequence: int) -> int:
        """Where the newest drift that was raised up to `sequence` is thought to have begun; -1 for none."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are kept."""

    kept: Kept
    artefacts_url: str
    board: Path | None = None
    """Folder for TensorBoard, or none."""


@dataclass(frozen=True, slots=True)
class Means:
    """What is trained with; other threads, or another device, may give other last digits."""

    threads: int = 1
    device: str = "auto"
    """cpu, cuda, or auto: a GPU where there is one."""


class _Skipped(Exception):
    """The run ends without a model; its argument says why, in a word."""


class Runner:
    """Takes up triggers one after another."""

    def __init__(
        self,
        pipeline: Pipeline,
        policy: RetrainPolicy,
        place: Place,
        means: Means,
        ledger: Ledger,
        journal: Journal,
        proposals: Proposals,
        outlook: Outlook,
        trainer: Callable[[], Trainer],
    ) -> None:
        self._pipeline, self._policy, self._place = pipeline, policy, place
        self._means = means
        self._ledger, self._journal, self._proposals = ledger, journal, proposals
        self._outlook, self._trainer = outlook, trainer

    def run(self, trigger: Trigger) -> str:
        """Bring the run to its end, from wherever it was left; gives done, failed or skipped.

        Raises:
            Retry: the broker or the store is away; the same call goes on later.
            Stopped: the service leaves.
        """
        self._journal.refresh()
        past = self._journal.past(trigger.id)
        if past.ended is not None:
            return past.ended
        begun = past.begun
        if begun is None:
            newest = self._ledger.end()
            problem = unheld(trigger, newest)
            if problem:
                return self._refuse(trigger, newest, problem)
            begun = self._begin(trigger, newest)
        run = _Run(self, Trigger.from_json(begun.detail["trigger"]), int(begun.detail["commands"]))
        try:
            end, detail = "done", run.steps()
        except _Skipped as reason:
            end, detail = "skipped", {"reason": str(reason)}
        except StepFailed as failure:
            end, detail = "failed", {"reason": failure.code, "detail": failure.detail}
        except Refused as refusal:
            end, detail = "failed", {"reason": "refused", "detail": str(refusal)}
        finally:
            run.close()
        self._journal.write(Step(trigger.id, end, "done", run.trigger.sequence, "", detail))
        return end

    def skip(self, trigger: Trigger, reason: str) -> None:
        """Write down that this trigger sets off nothing."""
        if self._journal.past(trigger.id).ended is None:
            self._journal.write(Step(trigger.id, "skipped", "done", trigger.sequence, "", {"reason": reason}))

    def _refuse(self, trigger: Trigger, end: int, problem: str) -> str:
        """End a run before it begins; the ledger's end stands for a position that is none."""
        detail = {"reason": "refused", "detail": problem}
        self._journal.write(Step(trigger.id, "failed", "done", end, "", detail))
        return "failed"

    def _begin(self, trigger: Trigger, end: int) -> Step:
        """Fix what the run learns from: a kill later finds it written."""
        whole = resolved(trigger, end, -1)
        if whole.since < 0:
            whole = resolved(whole, end, self._outlook.since(whole.sequence))
        detail: dict[str, Any] = {"trigger": whole.to_json(), "commands": self._proposals.end()}
        step = Step(trigger.id, "trigger", "started", whole.sequence, "", detail)
        self._journal.write(step)
        return step


class _Run:
    """One run under way."""

    def __init__(self, runner: Runner, trigger: Trigger, commands: int) -> None:
        self._r, self.trigger, self._commands = runner, trigger, commands
        self._pipeline, self._policy, self._kept = runner._pipeline, runner._policy, runner._place.kept
        self._terms: dict[str, JsonValue] = terms_of(self._pipeline, self._policy)
        self._worker: Trainer | None = None

    def close(self) -> None:
        """Let go of the training process."""
        if self._worker is not None:
            self._worker.close()

    def steps(self) -> dict[str, Any]:
        """All of them; what the end says. What was proposed before a kill stands, whoever is champion by now."""
        command = proposal_id(self.trigger.id)
        proposal, state = self._r._proposals.find(command, self._commands), "cached"
        if proposal is None:
            proposal, state = self._work_out(command), "done"
            self._r._proposals.send(proposal)
        evidence = hashlib.sha256(proposal.evidence).hexdigest()
        key = step_key("propose", [proposal.digest, evidence], code_digest(), command)
        detail: dict[str, Any] = {"command": command, "digest": proposal.digest, "evidence": evidence}
        if not any(each.step == "propose" for each in self._r._journal.past(self.trigger.id).steps):
            self._tell("propose", state, key, detail)
        said = {name: proposal.parameters[name] for name in ("dataset", "kind", "window")}
        return {**said, "digest": proposal.digest, "command": command}

    def _work_out(self, command: str) -> Proposal:
        """Everything up to the proposal."""
        dataset = self._dataset()
        self._statistics(dataset)
        candidate = self._train(dataset)
        champion = self._r._outlook.champion(self._r._journal.proposed())
        verdict = self._evaluate(dataset, candidate, champion)
        packaged = self._package(dataset, candidate, verdict)
        return self._proposal(command, dataset, candidate, champion, verdict, packaged)

    def _dataset(self) -> dict[str, Any]:
        wanted = wanted_rows(self._policy.window_rows, self._policy.validation)
        recipe = Recipe(self._pipeline, self.trigger.sequence, wanted, self._policy.windows)
        names = sorted(self._r._ledger.topics().items())
        inputs: JsonValue = [[[name, *ids] for name, ids in names], recipe.cut_off]
        terms: JsonValue = [recipe.window_rows, list(recipe.windows), self._pipeline.feature_fingerprint]

        def work() -> JsonValue:
            manifest = build(recipe, self._r._ledger, self._kept)
            return {
                "dataset": manifest.id,
                "root": manifest.root,
                "content": manifest.content,
                "cut_off": manifest.cut_off,
                "first": manifest.segments[0].first,
                "events": manifest.counts["rows"]["events"],
                "classes": dict(manifest.counts["class"]),
            }

        return self._step("dataset", inputs, terms, work)

    def _statistics(self, dataset: dict[str, Any]) -> None:
        names, classes = self._pipeline.feature_names, self._pipeline.class_names

        def work() -> JsonValue:
            manifest = self._kept.manifest(dataset["dataset"])
            tables = [unseal(self._kept.get("segments", each.sha256)) for each in manifest.segments]
            rows = learnable(ledger_rows(tables, names)).last(manifest.window_rows)
            found = anomalies(rows, names, classes, self._policy.min_rows, manifest.counts["kind"])
            return {"events": len(rows), "anomalies": [each.to_json() for each in found]}

        found = self._step("statistics", dataset["dataset"], self._policy.min_rows, work)
        stop = next((each for each in found["anomalies"] if each["stops"]), None)
        if stop is not None:
            raise _Skipped(stop["code"])

    def _train(self, dataset: dict[str, Any]) -> dict[str, Any]:
        board, means = self._r._place.board, self._r._means
        job: dict[str, JsonValue] = {
            "do": "train",
            "terms": self._terms,
            "kept": self._kept.url,
            "dataset": dataset["dataset"],
            "since": self.trigger.since,
            "segments": self._sealed(),
            "code": code_digest(),
            "threads": means.threads,
            "device": means.device,
        }
        extra: dict[str, JsonValue] = {
            "sequence": self.trigger.sequence,
            "board": None if board is None else str(board / run_slug(self.trigger.id)),
            "at": self.trigger.at,
        }
        parameters: JsonValue = [self._terms, self.trigger.since, means.threads, means.device]
        found = self._step(
            "train", dataset["dataset"], parameters, lambda: self._ask({**job, **extra}), begins=True
        )
        best: dict[str, Any] = found["candidates"][0]
        return {**best, "others": found["candidates"][1:]}

    def _sealed(self) -> JsonValue:
        """The sha256 of every whole segment up to the trigger's sequence, for the challenger."""
        return [
            each.sha256 for each in sealed(self._r._ledger, self._kept, self._pipeline, self.trigger.sequence)
        ]

    def _evaluate(
        self, dataset: dict[str, Any], candidate: dict[str, Any], champion: dict[str, JsonValue]
    ) -> dict[str, Any]:
        inputs: JsonValue = [
            dataset["dataset"],
            candidate["digest"],
            candidate["scores"],
            champion.get("digest", ""),
        ]
        least = min(LEAST_JUDGED, self._pipeline.policy.gate.min_rows)
        job: dict[str, JsonValue] = {
            "do": "evaluate",
            "terms": self._terms,
            "kept": self._kept.url,
            "artefacts": self._r._place.artefacts_url,
            "dataset": dataset["dataset"],
            "candidate": candidate,
            "champion": champion,
            "least": least,
        }
        return self._step("evaluate", inputs, [self._terms, least], lambda: self._ask(job))

    def _package(
        self, dataset: dict[str, Any], candidate: dict[str, Any], verdict: dict[str, Any]
    ) -> dict[str, Any]:
        said: dict[str, JsonValue] = {
            "id": dataset["dataset"],
            "root": dataset["root"],
            "cut_off": dataset["cut_off"],
            "pipeline": self._pipeline.name,
        }
        origin: dict[str, JsonValue] = {
            "trigger": self.trigger.id,
            "code": code_digest(),
            "kind": candidate["kind"],
        }
        metrics: dict[str, JsonValue] = dict(verdict["figures"]["all"]["candidate"])
        job: dict[str, JsonValue] = {
            "do": "package",
            "terms": self._terms,
            "kept": self._kept.url,
            "artefacts": self._r._place.artefacts_url,
            "dataset": said,
            "candidate": candidate,
            "metrics": metrics,
            "created_from": origin,
        }
        inputs: JsonValue = [said, candidate["digest"], metrics]
        return self._step("package", inputs, [self.trigger.id], lambda: self._ask(job))

    def _proposal(
        self,
        command: str,
        dataset: dict[str, Any],
        candidate: dict[str, Any],
        champion: dict[str, JsonValue],
        verdict: dict[str, Any],
        packaged: dict[str, Any],
    ) -> Proposal:
        keep = ("kind", "window", "metrics", "rows", "trained_until", "validation_rows")
        parameters: dict[str, JsonValue] = {
            "trigger": self.trigger.to_json(),
            "sequence": self.trigger.sequence,
            "dataset": dataset["dataset"],
            **{name: candidate[name] for name in keep},
            "others": [
                {name: each[name] for name in ("kind", "window", "metrics")} for each in candidate["others"]
            ],
            "figures": verdict["figures"],
            "champion": champion,
            "champion_problem": verdict["champion_problem"],
            "unseen": verdict["unseen"],
            "row_seconds": packaged["row_seconds"],
            "bytes": packaged["bytes"],
            "architecture": packaged["architecture"],
        }
        return Proposal(
            command,
            self._pipeline.model.name,
            packaged["digest"],
            f"{self.trigger.kind} {self.trigger.id}",
            self._kept.get("blobs", verdict["evidence"]),
            parameters,
            self.trigger.at,
        )

    def _step(
        self,
        step: str,
        inputs: JsonValue,
        parameters: JsonValue,
        work: Callable[[], JsonValue],
        *,
        begins: bool = False,
    ) -> dict[str, Any]:
        """A step's result: kept from before, or worked out, kept and told."""
        key = step_key(step, inputs, code_digest(), parameters)
        known: dict[str, Any] | None = self._kept.step(key)
        if known is None:
            if begins and not self._begun(step, key):
                self._tell(step, "started", key, {})
            try:
                known = told(work())
            except (StepFailed, Refused) as failure:
                self._tell(step, "failed", key, {"detail": str(failure)})
                raise
            self._kept.put_step(key, known)
            self._tell(step, "done", key, known)
        elif self._r._journal.past(self.trigger.id).of(step, key) is None:
            self._tell(step, "cached", key, known)
        return known

    def _begun(self, step: str, key: str) -> bool:
        past = self._r._journal.past(self.trigger.id)
        return any((each.step, each.key, each.state) == (step, key, "started") for each in past.steps)

    def _tell(self, step: str, state: str, key: str, detail: dict[str, Any]) -> None:
        self._r._journal.write(Step(self.trigger.id, step, state, self.trigger.sequence, key, detail))

    def _ask(self, job: dict[str, JsonValue]) -> Any:
        if self._worker is None:
            self._worker = self._r._trainer()
        return self._worker.ask(job, self._policy.time_limit_ms / 1000)


def terms_of(pipeline: Pipeline, policy: RetrainPolicy) -> dict[str, JsonValue]:
    """What every job says of the pipeline."""
    label = pipeline.label
    if label is None:
        raise Refused(f"{pipeline.name} declares no [label]; a model needs outcomes to learn from")
    return {
        "feature_names": list(pipeline.feature_names),
        "feature_fingerprint": pipeline.feature_fingerprint,
        "classes": pipeline.class_count,
        "positive": label.class_index(label.positive),
        "policy": policy.model_dump(mode="json"),
        "slices": [each.model_dump(mode="json") for each in pipeline.policy.slices],
        "architecture": pipeline.model.architecture,
        "hidden": list(pipeline.model.hidden),
        "metric": pipeline.policy.gate.metric,
        "categorical": [list(each) for each in categorical_of(pipeline)],
    }


def categorical_of(pipeline: Pipeline) -> list[tuple[int, int]]:
    """Place and number of codes of each feature that is declared with `categories`."""
    return [
        (place, feature.categories)
        for place, feature in enumerate(pipeline.features)
        if isinstance(feature, ExpressionFeature) and feature.categories is not None
    ]
