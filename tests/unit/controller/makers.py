"""A controller's small world: evidence of a better, an equal or a poisoned candidate, figures, words, commands."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from services.cli.hindsight import History, Told
from services.controller.core.book import Rules
from services.controller.core.controller import Controller
from services.controller.core.records import ACCEPTED, PROPOSE, Command, Score, Word
from services.controller.core.state import Entry
from shared.contracts.policies import GatePolicy, PromotionPolicy, RollbackPolicy
from shared.models.announcement import CHAMPION
from shared.models.evidence import Evidence, pack

MODEL = "fraud"
FINGERPRINT = "ab" * 32
Floats = npt.NDArray[np.float64]


def rules(
    approval: bool = False,
    shadow_labels: int = 0,
    canary_labels: int = 0,
    rollback: RollbackPolicy | None = None,
    **gate: Any,
) -> Rules:
    promotion = PromotionPolicy.model_validate(
        {"approval": approval, "shadow_labels": shadow_labels, "canary_labels": canary_labels}
    )
    asked = GatePolicy.model_validate({"bootstrap": 100, "min_rows": 100, **gate})
    return Rules(MODEL, FINGERPRINT, 2, asked, promotion, rollback)


def noisy(truth: Floats, skill: float, seed: int) -> Floats:
    """Scores that know the outcome to some degree: 0 nothing, 1 nearly all."""
    noise = np.random.default_rng(seed).normal(size=len(truth))
    return 1 / (1 + np.exp(-(skill * 4 * (truth - 0.5) + 0.5 * noise)))


def evidence(
    champion: float = 0.2,
    candidate: float = 0.8,
    rows: int = 400,
    seed: int = 1,
    sources: Sequence[str] = ("",),
    **changes: Any,
) -> Evidence:
    """Rows of two classes; skills say how much each model knows."""
    truth = (np.random.default_rng(seed).random(rows) < 0.4).astype(np.float64)
    fields: dict[str, Any] = {
        "classes": 2,
        "sequences": np.arange(rows, dtype=np.int64),
        "labels": truth.astype(np.uint8),
        "champion": noisy(truth, champion, seed + 1).astype(np.float32),
        "candidate": noisy(truth, candidate, seed + 2).astype(np.float32),
        "slice_names": (),
        "slices": np.zeros(rows, np.uint64),
        "source_names": tuple(sources),
        "sources": (np.arange(rows) % len(sources)).astype(np.uint16),
    }
    return Evidence(**(fields | changes))


BETTER = pack(evidence())
EQUAL = pack(replace(evidence(), candidate=evidence().champion))
WORSE = pack(evidence(0.8, 0.2))
_AT = 1_000


def digest_of(number: int) -> str:
    return f"{number:064x}"


def command(kind: str, offset: int, version: int = -1, **changes: Any) -> Command:
    fields: dict[str, Any] = {
        "id": f"{kind}-{offset}",
        "kind": kind,
        "model_name": MODEL,
        "model_version": version,
        "actor": "ann",
        "reason": "because",
        "offset": offset,
        "at": _AT + offset,
    }
    return Command(**(fields | changes))


def propose(offset: int, proof: bytes = BETTER, artefact: str = "", **changes: Any) -> Command:
    artefact = artefact or digest_of(1_000 + offset)
    return command(
        PROPOSE, offset, model_digest=artefact, evidence=proof, **{"actor": "retrainer", **changes}
    )


def score(
    sequence: int, version: int, value: float, role: str = CHAMPION, metric: str = "log_loss", **changes: Any
) -> Score:
    fields: dict[str, Any] = {
        "rows": 200,
        "total": sequence,
        "slice": "all",
        "window": "rolling",
        "state": "provisional",
    }
    fields |= changes
    return Score(
        sequence=sequence,
        order_time=sequence * 1_000,
        version=version,
        role=role,
        metric=metric,
        value=value,
        at=_AT + sequence,
        **fields,
    )


def word(
    controller: Controller, version: int, kind: str = ACCEPTED, reason: str = "accepted", digest: str = ""
) -> Word:
    known = controller.state.versions[version].digest
    return Word(kind, version, digest or known, "inference-0", reason, "said", _AT)


def started(asked: Rules | None = None) -> Controller:
    """A controller whose version 1 serves and whose entries so far are taken."""
    controller = Controller(asked or rules())
    controller.bootstrap(digest_of(1), _AT)
    controller.take()
    return controller


def told(entries: Sequence[Entry]) -> list[str]:
    """Entries as `2 shadow gate.passed`, or `command.refused sequence.changed`."""
    return [f"{e.version} {e.state} {e.reason}" if e.state else f"{e.kind} {e.reason}" for e in entries]


def history_of(entries: list[Entry], said: Sequence[Told], alarms: Sequence[dict[str, Any]] = ()) -> History:
    """The log with these decisions on what was said, each record on its topic."""
    return History(
        entries,
        [each for each in said if isinstance(each, Score)],
        [each for each in said if isinstance(each, Word)],
        [each for each in said if isinstance(each, Command)],
        list(alarms),
    )
