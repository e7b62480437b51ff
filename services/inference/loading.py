"""Fetches, proves and warms announced models beside the traffic, so that a swap costs one assignment.

A thread takes the newest wanted announcement; the loop asks `take()` between batches. An artefact that is not
there yet is waited for, as long as `patience_s` and nothing newer is wanted.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.inference.core.fold import ActiveModel
from services.inference.core.registry import Action
from services.inference.core.scoring import Scorer
from shared.codec.batch import Floats
from shared.errors import Retry
from shared.models.announcement import Announcement
from shared.models.loading import load_model
from shared.models.manifest import Artefact
from shared.models.probe import Limits, probe
from shared.models.safety import ModelRefused
from shared.store.artefacts import ArtefactMissing, ArtefactStore


@dataclass(frozen=True, slots=True)
class LoadPolicy:
    """How a worker takes models in."""

    device: str = "cpu"
    limits: Limits = field(default_factory=Limits)
    patience_s: float = 30.0
    poll_s: float = 0.2
    proofs: Path | None = None
    """Folder of this host where passed trials are remembered; None tries every time."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An announced model that this worker does not take."""

    announcement: Announcement
    registry_offset: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Want:
    """What a thread needs to load one announced model."""

    feature_names: Sequence[str]
    recent: Callable[[], Floats]


class ModelLoader:
    """One background thread that turns `load` actions into proven, warm models or refusals.

    `recent` gives recent vectors float64[m, k] to warm up on (m may be 0); it is called from the thread.
    """

    def __init__(self, store: ArtefactStore, policy: LoadPolicy, want: Want) -> None:
        self._store, self._policy, self._want = store, policy, want
        self._changed = threading.Condition()
        self._next: Action | None = None
        self._done: deque[ActiveModel | Refusal | BaseException] = deque()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="model-loader", daemon=True)
        self._thread.start()

    def submit(self, action: Action) -> None:
        """Want the model of a `load` action; one that is still waited for is given up."""
        with self._changed:
            self._next = action
            self._changed.notify()

    def take(self) -> ActiveModel | Refusal | None:
        """The oldest outcome not yet taken, or None. Raises what is no fault of a model."""
        if not self._done:
            return None
        outcome = self._done.popleft()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def close(self) -> None:
        """Give up what is waited for, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._next is not None)
                if self._closed or self._next is None:
                    return
                action, self._next = self._next, None
            assert action.announcement is not None  # noqa: S101 - a load always has one
            try:
                self._done.append(self._load(action.announcement, action.offset))
            except ModelRefused as refused:
                self._done.append(Refusal(action.announcement, action.offset, refused.reason, refused.detail))
            except Exception as error:
                self._done.append(error)

    def _load(self, announcement: Announcement, offset: int) -> ActiveModel:
        policy, names = self._policy, self._want.feature_names
        artefact = self._fetch(announcement.digest)
        fingerprint = announcement.feature_fingerprint
        probe(artefact, fingerprint, policy.limits, policy.proofs)
        scorer = Scorer(load_model(artefact, fingerprint, names, policy.device))
        scorer.warm_up(self._want.recent())
        return ActiveModel(announcement, offset, scorer)

    def _fetch(self, digest: str) -> Artefact:
        deadline = time.monotonic() + self._policy.patience_s
        while True:
            try:
                return self._store.get(digest)
            except Retry as error:
                superseded = self._next is not None or self._closed
                if superseded or time.monotonic() >= deadline:
                    said = (
                        "gave way to a newer one" if superseded else f"waited {self._policy.patience_s:g} s"
                    )
                    reason = (
                        "artefact.missing" if isinstance(error, ArtefactMissing) else "artefact.unreachable"
                    )
                    raise ModelRefused(reason, f"{error}; {said}") from error
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._next is not None, self._policy.poll_s)
