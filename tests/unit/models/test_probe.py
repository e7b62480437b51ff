"""Item 61: a model that needs more than it declares, or than the worker grants, is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from shared.models import probe as probing
from shared.models.manifest import Budget, Mlp
from shared.models.probe import Limits, Waiting, new_trial, probe
from shared.models.safety import ModelRefused
from tests.unit.models.makers import FINGERPRINT, artefact, rebound, with_weights


def test_an_honest_model_passes_and_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = artefact()
    first = probe(made, FINGERPRINT, Limits(), tmp_path)
    assert 0 < first.row_seconds < 0.1
    monkeypatch.setattr(probing, "_run", lambda *_: pytest.fail("tried again"))
    assert probe(made, FINGERPRINT, Limits(), tmp_path) == first


def test_what_was_remembered_holds_for_the_same_limits_only(tmp_path: Path) -> None:
    made = artefact()
    probe(made, FINGERPRINT, Limits(), tmp_path)
    other = dataclasses.replace(Limits(), timeout_s=0.001)
    with pytest.raises(ModelRefused, match=r"resources\.latency"):
        probe(made, FINGERPRINT, other, tmp_path)


def test_declared_needs_above_the_grant_are_refused_without_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_run", lambda *_: pytest.fail("was tried"))
    with pytest.raises(ModelRefused, match=r"resources\.memory"):
        probe(artefact(), FINGERPRINT, Limits(memory_bytes=1))
    with pytest.raises(ModelRefused, match=r"resources\.latency"):
        probe(artefact(), FINGERPRINT, Limits(row_seconds=1e-9))


def test_memory_beyond_the_declared_is_refused() -> None:
    large = artefact(Mlp(inputs=3, hidden=(4096, 4096)))
    lying = rebound(large, {}, budget=Budget(memory_bytes=1 << 20, row_seconds=0.4))
    with pytest.raises(ModelRefused) as refused:
        probe(lying, FINGERPRINT, Limits())
    assert refused.value.reason == "resources.memory"


def test_time_beyond_the_declared_is_refused() -> None:
    lying = rebound(artefact(), {}, budget=Budget(memory_bytes=1 << 30, row_seconds=1e-12))
    with pytest.raises(ModelRefused) as refused:
        probe(lying, FINGERPRINT, Limits())
    assert refused.value.reason == "resources.latency"


def test_other_refusals_come_through() -> None:
    forged = with_weights(artefact(), layers__2__bias=np.array([5.0], np.float32))
    with pytest.raises(ModelRefused, match=r"golden\.mismatch"):
        probe(forged, FINGERPRINT, Limits())


def test_a_process_that_waits_takes_the_trial(tmp_path: Path) -> None:
    waiting = Waiting()
    waiting.prepare()
    process = waiting._next
    assert process is not None
    assert 0 < probe(artefact(), FINGERPRINT, Limits(), tmp_path, waiting).row_seconds < 0.1
    assert process.returncode == 0
    assert waiting._next is None


def test_one_that_died_while_it_waited_is_replaced() -> None:
    waiting = Waiting()
    waiting.prepare()
    process = waiting._next
    assert process is not None
    process.kill()
    process.wait()
    assert probe(artefact(), FINGERPRINT, Limits(), trial=waiting).row_seconds > 0


def test_one_that_waits_goes_with_the_worker() -> None:
    process = new_trial()
    assert process.communicate(timeout=120)[0] == b""
    assert process.returncode == 0
