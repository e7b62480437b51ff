"""Poisoned labels, with models as the retrainer trains them: what was learnt from one source's lies is refused."""

from functools import cache

import numpy as np
import pytest
import torch

from services.cli.changing import NAMES, Change, applications
from services.controller.core.gate import Verdict, judge
from services.retrainer.core.evaluate import Bout, Classes, evidence_of
from services.retrainer.core.kinds.choose import candidates
from services.retrainer.core.kinds.rows import Candidate, Floats, Ints, TrainingRows
from services.retrainer.core.ledger import LearningRows
from shared.contracts.policies import GatePolicy
from shared.models.building import Features
from shared.models.loading import load_model
from shared.models.manifest import Linear

HONEST, ROWS = 800, 1_400
SOURCES = ("branch", "web", "liar")
FEATURES = Features(NAMES, "00" * 32)


@cache
def world(seed: int) -> tuple[Floats, Ints, Ints]:
    """Vectors, what was told of them, and by whom; from HONEST on the liar turns 30 % of its outcomes round."""
    frame = applications(Change(events=ROWS, at=ROWS - 1, noise=0.0, seed=seed))
    random = np.random.default_rng(seed)
    source = random.integers(0, len(SOURCES), ROWS)
    lies = (np.arange(ROWS) >= HONEST) & (source == SOURCES.index("liar")) & (random.random(ROWS) < 0.3)
    truth = frame["repaid"].to_numpy().astype(np.int64)
    return np.ascontiguousarray(frame.select(NAMES).to_numpy()), np.where(lies, 1 - truth, truth), source


def best(matrix: Floats, told: Ints) -> Candidate:
    """The best model that a retraining on these outcomes proposes."""
    order = np.arange(len(told))
    rows = TrainingRows(FEATURES, matrix, told, 2, None, order * 1_000, order, {})
    return candidates(
        rows,
        kinds=("torch",),
        windows=("last",),
        window_rows=10_000,
        validation=0.2,
        drift_since=None,
        architecture=Linear(inputs=len(NAMES)),
        seed=0,
    )[0]


@cache
def verdict(seed: int, *, named: bool) -> Verdict:
    """On a model that was trained with the lies, against one from before; `named`: labels say who told them."""
    matrix, told, source = world(seed)
    champion, candidate = best(matrix[:HONEST], told[:HONEST]), best(matrix, told)
    tail = np.arange(ROWS - len(candidate.outputs), ROWS)
    model = load_model(champion.artefact, FEATURES.fingerprint, FEATURES.names)
    with torch.inference_mode():
        before = np.asarray(model.network(torch.from_numpy(matrix[tail])).numpy(), np.float64)
    names, by = (SOURCES, source[tail]) if named else (("",), np.zeros(len(tail), np.int64))
    rows = LearningRows(tail, tail.astype(np.uint64), told[tail], tail * 1_000, names, by, matrix[tail])
    evidence = evidence_of(Bout(rows, before, candidate.outputs, True), Classes(2, 1), (), NAMES)
    return judge(evidence, GatePolicy(), f"propose-{seed}")


@pytest.mark.parametrize("seed", range(3))
def test_what_was_learnt_from_the_lies_of_one_source_is_refused(seed: int) -> None:
    found = verdict(seed, named=True)
    assert found.reason == "gate.source"
    assert found.figures["low"] > 0.0, "it looks better on all rows"
    assert found.figures["without_source"]["liar"]["low"] < 0.0
    assert found.figures["without_source"]["web"]["low"] > 0.0


@pytest.mark.parametrize("seed", range(3))
def test_without_names_of_sources_it_would_pass(seed: int) -> None:
    assert verdict(seed, named=False).reason == "gate.passed"
