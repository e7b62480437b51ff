"""Vectors to scores on CPU or GPU; a row that the model cannot score stands alone."""

import threading
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from shared.codec.batch import Floats, Ints, Mask
from shared.models.loading import LoadedModel
from shared.models.outputs import improper, output_shape

FEATURES_NONFINITE = "features.nonfinite"
MODEL_FAILED = "model.failed"
MODEL_NONFINITE = "model.nonfinite"
# On CPU a sub-batch of this size fits the caches; on a GPU a larger one hides the launches.
CPU_ROWS = 1024
GPU_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class BadRow:
    """One row that has no score: `reason` is a bounded code, `message` is for people."""

    row: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores float64[n] in [0, 1] where `bad` is False; 0 and meaningless where it is True.

    Two classes: the score is P(the class of index `positive`), `probabilities` is None. More: `probabilities`
    float64[n, classes] and the score is the largest of the row.
    """

    scores: Floats
    bad: Mask
    rows: tuple[BadRow, ...] = ()
    probabilities: Floats | None = None
    positive: int = 1

    @property
    def predicted(self) -> Ints:
        """The class of each row int64[n]: of two the positive one from 0.5 on, of more the first largest."""
        if self.probabilities is None:
            return np.where(self.scores >= 0.5, self.positive, 1 - self.positive)
        return np.asarray(self.probabilities.argmax(axis=1), np.int64)


class _Engine(Protocol):
    """Runs the network over any rows, float64[n, k] to float64[n] or [n, classes]; raises what it raises."""

    def run(self, features: Floats) -> Floats: ...


@dataclass(slots=True)
class _Cpu:
    model: LoadedModel

    def run(self, features: Floats) -> Floats:
        out = np.empty(output_shape(len(features), self.model.classes), np.float64)
        for begin in range(0, len(features), CPU_ROWS):
            part = torch.from_numpy(features[begin : begin + CPU_ROWS])
            out[begin : begin + CPU_ROWS] = self.model.network(part).numpy()
        return out


def _events() -> list[torch.cuda.Event]:
    return [torch.cuda.Event(), torch.cuda.Event()]  # type: ignore[no-untyped-call]


class _Gpu:
    """Two pinned buffers each way: while one sub-batch is computed, the next is copied."""

    def __init__(self, model: LoadedModel, rows: int = GPU_ROWS) -> None:
        self._model, self._rows = model, rows
        self._copies = torch.cuda.Stream(model.device)  # type: ignore[no-untyped-call]
        width = len(model.feature_names)
        self._pinned = [torch.empty((rows, width), dtype=torch.float64, pin_memory=True) for _ in range(2)]
        self._inputs = [
            torch.empty((rows, width), dtype=torch.float64, device=model.device) for _ in range(2)
        ]
        self._copied = _events()
        self._computed = _events()

    def run(self, features: Floats) -> Floats:
        shape = output_shape(len(features), self._model.classes)
        outputs = torch.empty(shape, dtype=torch.float64, pin_memory=True)
        compute = torch.cuda.current_stream(self._model.device)
        try:
            for turn, begin in enumerate(range(0, len(features), self._rows)):
                self._one(turn % 2, features[begin : begin + self._rows], outputs, begin, compute)
        finally:  # the buffers are free again, also after a failure
            torch.cuda.synchronize(self._model.device)
        return outputs.numpy()

    def _one(
        self, slot: int, part: Floats, outputs: torch.Tensor, begin: int, compute: torch.cuda.Stream
    ) -> None:
        rows = len(part)
        self._copied[slot].synchronize()  # the pinned buffer's last copy has left it
        self._pinned[slot][:rows].copy_(torch.from_numpy(part))
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(self._computed[slot])  # the device buffer's last reader is done
            self._inputs[slot][:rows].copy_(self._pinned[slot][:rows], non_blocking=True)
            self._copied[slot].record(self._copies)
        compute.wait_event(self._copied[slot])
        scores = self._model.network(self._inputs[slot][:rows])
        self._computed[slot].record(compute)
        outputs[begin : begin + rows].copy_(scores, non_blocking=True)


@dataclass(slots=True)
class Scorer:
    """One model, ready to score. On CPU it holds torch to one thread in the thread that scores."""

    model: LoadedModel
    positive: int = 1
    """Index of the class that the score of two classes is the probability of."""
    _engine: _Engine = field(init=False)
    _thread: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._engine = _Gpu(self.model) if self.model.device.type == "cuda" else _Cpu(self.model)

    def score(self, features: Floats) -> Scored:
        """Score float64[n, k], C-contiguous and writeable. Never raises for what a row does to the model."""
        if self._thread != threading.get_ident():  # torch keeps the number for each thread apart
            torch.set_num_threads(1)
            self._thread = threading.get_ident()
        count = len(features)
        values = np.zeros(output_shape(count, self.model.classes), np.float64)
        bad = np.zeros(count, np.bool_)
        found: list[BadRow] = []
        finite = np.isfinite(features).all(axis=1)
        if finite.all():
            self._attempt(features, np.arange(count), values, found)
        else:
            rows = np.flatnonzero(finite)
            names = self.model.feature_names
            for row in np.flatnonzero(~finite).tolist():
                which = names[int(np.argmin(np.isfinite(features[row])))]
                found.append(BadRow(row, FEATURES_NONFINITE, f"feature {which} is NaN or infinite"))
            self._attempt(features[rows], rows, values, found)
        bad[[each.row for each in found]] = True
        values[bad] = 0.0
        spoiled = tuple(sorted(found, key=lambda each: each.row))
        if values.ndim == 1:
            return Scored(values, bad, spoiled, None, self.positive)
        return Scored(values.max(axis=1), bad, spoiled, values)

    def _attempt(self, features: Floats, rows: Ints, out: Floats, found: list[BadRow]) -> None:
        """Score all rows at once; where the model raises, each half, until the culprit stands alone."""
        if not len(rows):
            return
        try:
            with torch.inference_mode():
                values = self._engine.run(features)
        except Exception as error:
            if len(rows) == 1:
                found.append(BadRow(int(rows[0]), MODEL_FAILED, f"{type(error).__name__}: {error}"[:500]))
                return
            half = len(rows) // 2
            self._attempt(features[:half], rows[:half], out, found)
            self._attempt(features[half:], rows[half:], out, found)
            return
        out[rows] = values
        for at in np.flatnonzero(improper(values)).tolist():
            message = f"the model gave {values[at]}, not a probability in [0, 1]"[:500]
            found.append(BadRow(int(rows[at]), MODEL_NONFINITE, message))

    def warm_up(self, recent: Floats) -> None:
        """Run what traffic will run, before traffic does: `recent` float64[n, k], then its first row alone.

        With no recent vectors the means that the model was scaled by are used.
        """
        if not len(recent):
            recent = self.model.centre[None, :].repeat(CPU_ROWS, axis=0)
        self.score(recent)
        self.score(recent[:1])
