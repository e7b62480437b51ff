"""Rows in time order to an artefact: scaled, fitted on the head, judged on the tail, bit-equal each time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from pydantic import JsonValue

from services.retrainer.core.metrics import average_precision, log_loss, roc_auc
from shared.errors import Refused
from shared.models.architectures import Network
from shared.models.building import Features, Provenance, build_artefact, golden_rows
from shared.models.manifest import Artefact, Dtype, Linear, Mlp

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
MIN_ROWS = 50
# An epoch takes at least about this many steps, where there are rows for batches of 32.
STEPS = 64


@dataclass(frozen=True, slots=True)
class Dataset:
    """Vectors float64[n, k] in time order with their outcomes bool[n], and what they are in JSON."""

    features: Features
    matrix: Floats
    labels: Mask
    manifest: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Spec:
    """How to train."""

    architecture: Linear | Mlp
    dtype: Dtype = "float32"
    epochs: int = 30
    # At most; few rows are cut into smaller batches, so that each epoch takes enough steps.
    batch_rows: int = 1024
    learning_rate: float = 5e-3
    weight_decay: float = 1e-4
    # The share of rows, the newest, that judges; training stops after `patience` epochs without gain there.
    tail: float = 0.2
    patience: int = 4
    # Weigh both classes alike. It ranks rare positives a little better and is no probability any more.
    balance: bool = False

    def describe(self) -> dict[str, JsonValue]:
        """The spec as the manifest keeps it."""
        skipped = {"architecture", "dtype"}
        return {name: getattr(self, name) for name in self.__slots__ if name not in skipped}


def train(data: Dataset, spec: Spec, seed: int) -> Artefact:
    """Fit a model. Refused when the rows cannot teach one: too few, one class only, or NaN among them."""
    _check(data, spec)
    split = len(data.matrix) - max(1, int(len(data.matrix) * spec.tail))
    with _reproducible(seed):
        network = Network(spec.architecture, spec.dtype)
        _fit_scaling(network, data.matrix[:split])
        epochs = _Fit(network, spec, seed).run(data.matrix, data.labels, split)
        tail_scores = _scores(network, data.matrix[split:])
    created: dict[str, JsonValue] = {
        "trainer": "millrace.torch",
        "torch": torch.__version__.split("+")[0],
        "seed": seed,
        "epochs_run": epochs,
        "spec": spec.describe(),
    }
    figures = _metrics(data.labels[split:], tail_scores)
    dataset: dict[str, JsonValue] = {**data.manifest, "rows": len(data.matrix), "tail_rows": len(tail_scores)}
    provenance = Provenance(dataset, figures, created)
    return build_artefact(spec.architecture, network, data.features, golden_rows(data.matrix), provenance)


def _check(data: Dataset, spec: Spec) -> None:
    rows, width = data.matrix.shape
    if len(data.labels) != rows or width != len(data.features.names) or width != spec.architecture.inputs:
        raise ValueError(
            f"{rows} rows of {width}, {len(data.labels)} labels, {len(data.features.names)} names"
        )
    if rows < MIN_ROWS:
        raise Refused(
            f"{rows} labelled rows; training needs at least {MIN_ROWS}: send more events and labels"
        )
    if data.labels.all() or not data.labels.any():
        raise Refused("every label is of one class; training needs both: wait for the other outcome")
    if not np.isfinite(data.matrix).all():
        raise Refused("a feature is NaN or infinite; correct its declaration or its source")


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """One thread and seeded numbers: sums in one order, so that the weights are bit-equal."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def _fit_scaling(network: Network, head: Floats) -> None:
    spread = head.std(axis=0)
    network.scaling.mean.copy_(torch.from_numpy(head.mean(axis=0)))
    network.scaling.scale.copy_(torch.from_numpy(np.where(spread > 0, spread, 1.0)))


class _Fit:
    """AdamW on log loss, the best epoch on the tail kept."""

    def __init__(self, network: Network, spec: Spec, seed: int) -> None:
        self._network, self._spec = network, spec
        self._shuffle = torch.Generator().manual_seed(seed)
        self._optimiser = torch.optim.AdamW(
            network.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay
        )

    def run(self, matrix: Floats, labels: Mask, split: int) -> int:
        """Fit on the rows before `split`; leaves the best weights in the network, gives the epochs run."""
        dtype = self._network.dtype
        with torch.no_grad():
            inputs = self._network.scaling(torch.from_numpy(matrix)).to(dtype)
        truth = torch.from_numpy(labels.astype(np.float64)).to(dtype)
        share = float(truth[:split].mean())
        weight = torch.tensor((1 - share) / share if self._spec.balance and share else 1.0, dtype=dtype)
        best, best_loss, best_epoch, epoch = self._copy(), float("inf"), 0, 0
        for epoch in range(1, self._spec.epochs + 1):
            self._epoch(inputs[:split], truth[:split], weight)
            loss = self._loss(inputs[split:], truth[split:], weight)
            if loss < best_loss:
                best, best_loss, best_epoch = self._copy(), loss, epoch
            elif epoch - best_epoch >= self._spec.patience:
                break
        self._network.load_state_dict(best)
        return epoch

    def _epoch(self, inputs: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor) -> None:
        order = torch.randperm(len(inputs), generator=self._shuffle)
        size = min(self._spec.batch_rows, max(32, len(inputs) // STEPS))
        for rows in torch.split(order, size):
            self._optimiser.zero_grad()
            logits = self._network.logits(inputs[rows])
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, truth[rows], pos_weight=weight
            )
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()

    def _loss(self, inputs: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor) -> float:
        with torch.inference_mode():
            logits = self._network.logits(inputs)
            cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
            return float(cross_entropy(logits, truth, pos_weight=weight))

    def _copy(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in self._network.state_dict().items()}


def _scores(network: Network, matrix: Floats) -> Floats:
    with torch.inference_mode():
        scores: Floats = network.eval()(torch.from_numpy(matrix)).numpy()
    return scores


def _metrics(labels: Mask, scores: Floats) -> dict[str, float]:
    """Log loss always; ranking figures where the tail has both classes."""
    found = {"log_loss": log_loss(labels, scores), "positive_share": float(labels.mean())}
    if labels.any() and not labels.all():
        found |= {"roc_auc": roc_auc(labels, scores), "average_precision": average_precision(labels, scores)}
    return found
