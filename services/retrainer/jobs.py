"""The steps that take long: train, evaluate, package. What they need is in the job, by value or by sha256."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import JsonValue

from services.retrainer.board import write_events
from services.retrainer.challenger import Challenger, finite
from services.retrainer.core.evaluate import Bout, Classes, by_part, evidence_of, fair_rows
from services.retrainer.core.kinds.networks import device_of
from services.retrainer.core.kinds.rows import Plan
from services.retrainer.core.ledger import LearningRows, learnable
from services.retrainer.core.reference import reference_of
from services.retrainer.core.segments import ledger_rows, unseal
from services.retrainer.fitting import Fitted, fit
from services.retrainer.kept import Kept
from shared.contracts.policies import RetrainPolicy, Slice
from shared.models.building import Features
from shared.models.evidence import pack
from shared.models.loading import load_model
from shared.models.manifest import Artefact, Linear, Mlp
from shared.models.safety import ModelRefused, read_tensors, write_tensors
from shared.store.artefacts import ArtefactMissing, ArtefactStore

Floats = npt.NDArray[np.float64]
INLINE_BYTES = 512 << 10
"""A reference that is larger than this is not put into the model's manifest."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What every job says of the pipeline."""

    features: Features
    classes: Classes
    policy: RetrainPolicy
    slices: tuple[Slice, ...]
    architecture: Linear | Mlp
    metric: str
    categorical: dict[int, int]
    """Places of features that hold codes, with how many there are."""

    @staticmethod
    def of(said: dict[str, Any]) -> "Terms":
        """From the job's `terms`."""
        policy: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in said["policy"].items()
        }
        return Terms(
            Features(tuple(said["feature_names"]), said["feature_fingerprint"]),
            Classes(said["classes"], said["positive"]),
            RetrainPolicy.model_construct(**policy),
            tuple(Slice(**each) for each in said["slices"]),
            _architecture(said),
            said["metric"],
            dict(said["categorical"]),
        )


def train(job: dict[str, Any]) -> JsonValue:
    """Candidates on the dataset's rows, best first; artefacts and validation scores are kept."""
    terms, kept = Terms.of(job["terms"]), Kept(job["kept"])
    rows = _rows(kept, job["dataset"], terms)
    challenger = Challenger(kept, tuple(job["segments"]), terms.features, terms.classes, job["code"])
    policy, device = terms.policy, device_of(job["device"])
    plan = Plan(terms.architecture, policy.seed, job["threads"], device, policy.balance)
    fitted = fit(rows, challenger, policy, job["since"], plan, terms.metric, terms.categorical)
    if job.get("board"):
        figures = {f"{e.kind}/{e.window}/{tag}": value for e in fitted for tag, value in e.figures.items()}
        write_events(Path(job["board"]), figures, job["sequence"], job["at"])
    workshop = _workshop(kept)
    return {"candidates": [_noted(each, workshop, kept) for each in fitted]}


def evaluate(job: dict[str, Any]) -> JsonValue:
    """The candidate against the champion on the validation rows; the evidence is kept."""
    terms, kept = Terms.of(job["terms"]), Kept(job["kept"])
    rows = _rows(kept, job["dataset"], terms)
    scores = read_tensors(kept.get("blobs", job["candidate"]["scores"]))["scores"].astype(np.float64)
    tail = rows.last(len(scores))
    champion, problem = _champion_scores(job["champion"], job["artefacts"], tail.matrix, terms)
    until = int(job["champion"].get("trained_until", -1)) if problem == "" else -1
    judged, unseen = fair_rows(tail, until, job["least"])
    picked = np.flatnonzero(judged)
    bout = Bout(tail.pick(picked), champion[picked], scores[picked], unseen)
    evidence = evidence_of(bout, terms.classes, terms.slices, terms.features.names)
    parts: dict[str, Any] = dict(by_part(evidence))
    return {
        "evidence": kept.put("blobs", pack(evidence)),
        "rows": evidence.rows,
        "first": int(evidence.sequences[0]),
        "last": int(evidence.sequences[-1]),
        "unseen": unseen,
        "champion_problem": problem,
        "figures": parts,
    }


def package(job: dict[str, Any]) -> JsonValue:
    """The candidate with all that is known of its origin, in the artefact store, proved there."""
    terms, kept = Terms.of(job["terms"]), Kept(job["kept"])
    rows = _rows(kept, job["dataset"]["id"], terms)
    made = _workshop(kept).get(job["candidate"]["digest"])
    dataset: dict[str, JsonValue] = {
        **job["dataset"],
        "trained_until": job["candidate"]["trained_until"],
        "window": job["candidate"]["window"],
    }
    learnt = rows.pick(np.flatnonzero(rows.sequences <= job["candidate"]["trained_until"]))
    reference = reference_of(terms.features.names, learnt.last(terms.policy.window_rows).matrix)
    if len(json.dumps(reference)) <= INLINE_BYTES:
        dataset["reference"] = reference
    manifest = made.manifest.model_copy(
        update={
            "dataset": dataset,
            "metrics": job["metrics"],
            "created_from": {**made.manifest.created_from, **job["created_from"]},
        }
    )
    artefact = Artefact(manifest, made.files)
    load_model(artefact, terms.features.fingerprint, terms.features.names, classes=terms.classes.count)
    return {
        "digest": ArtefactStore(job["artefacts"]).put(artefact),
        "bytes": sum(entry.size for entry in manifest.files.values()),
        "row_seconds": manifest.budget.row_seconds,
        "architecture": manifest.architecture.name,
    }


def _architecture(said: dict[str, Any]) -> Linear | Mlp:
    inputs, classes = len(said["feature_names"]), said["classes"]
    if said["architecture"] == "mlp":
        return Mlp(inputs=inputs, hidden=tuple(said["hidden"]), classes=classes)
    return Linear(inputs=inputs, classes=classes)


JOBS: dict[str, Callable[[dict[str, Any]], JsonValue]] = {
    "train": train,
    "evaluate": evaluate,
    "package": package,
}


def _rows(kept: Kept, dataset: str, terms: Terms) -> LearningRows:
    manifest = kept.manifest(dataset)
    tables = [unseal(kept.get("segments", each.sha256)) for each in manifest.segments]
    return finite(learnable(ledger_rows(tables, terms.features.names)))


def _workshop(kept: Kept) -> ArtefactStore:
    """Where candidates lie before one of them is packaged."""
    return ArtefactStore(f"{kept.url}/candidates")


def _noted(each: Fitted, workshop: ArtefactStore, kept: Kept) -> JsonValue:
    """A candidate as the result of the step `train` has it."""
    return {
        "kind": each.kind,
        "window": each.window,
        "rows": each.rows,
        "trained_until": each.trained_until,
        "digest": workshop.put(each.artefact),
        "scores": kept.put("blobs", write_tensors({"scores": each.scores})),
        "validation_rows": len(each.scores),
        "metrics": dict(each.figures),
    }


def _champion_scores(
    champion: dict[str, Any], artefacts: str, matrix: Floats, terms: Terms
) -> tuple[Floats, str]:
    """What the champion says of these rows, and why it cannot be asked where it cannot: then it knows nothing.

    Retry where the whole store is away: what serves is no worse for that.
    """
    ignorant = terms.classes.ignorant(len(matrix))
    if not champion:
        return ignorant, "no champion is announced"
    store = ArtefactStore(artefacts)
    try:
        artefact = store.get(champion["digest"])
        model = load_model(
            artefact, terms.features.fingerprint, terms.features.names, classes=terms.classes.count
        )
    except (ModelRefused, ArtefactMissing) as refusal:
        if isinstance(refusal, ArtefactMissing) and not store.present():
            raise
        return ignorant, str(refusal)
    champion["trained_until"] = artefact.manifest.dataset.get("trained_until", -1)
    with torch.inference_mode():
        scores = model.network(torch.from_numpy(np.ascontiguousarray(matrix))).numpy()
    return np.asarray(scores, np.float64), ""
