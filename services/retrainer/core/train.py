"""Rows in time order to an artefact: scaled, fitted on the head, judged on the tail, bit-equal each time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from pydantic import JsonValue

from services.retrainer.core.kinds.balance import balance_of
from services.retrainer.core.metrics import figures
from shared.errors import Refused
from shared.models.architectures import Network
from shared.models.building import Features, Provenance, build_artefact, golden_rows
from shared.models.manifest import Artefact, Dtype, Linear, Mlp

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
MIN_ROWS = 50
# An epoch takes at least about this many steps, where there are rows for batches of 32.
STEPS = 64


@dataclass(frozen=True, slots=True)
class Dataset:
    """Vectors float64[n, k] in time order with their outcomes, and what they are in JSON.

    Outcomes are bool[n], or class numbers int64[n] where the architecture tells more than two apart.
    """

    features: Features
    matrix: Floats
    labels: Mask | Ints
    manifest: dict[str, JsonValue]
    # How much each row counts, float64[n] above 0; all alike where it is None.
    weights: Floats | None = None


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
    # Weigh all classes alike. It ranks rare positives a little better and is no probability any more.
    balance: bool = False

    def describe(self) -> dict[str, JsonValue]:
        """The spec as the manifest keeps it."""
        skipped = {"architecture", "dtype"}
        return {name: getattr(self, name) for name in self.__slots__ if name not in skipped}


def train(data: Dataset, spec: Spec, seed: int, *, threads: int = 1, device: str = "cpu") -> Artefact:
    """Fit a model. Refused when the rows cannot teach one: too few, one class only, or NaN among them.

    The same rows, spec, seed and number of threads give the same bytes on a CPU; a GPU rounds otherwise.
    """
    _check(data, spec)
    split = len(data.matrix) - max(1, int(len(data.matrix) * spec.tail))
    network, epochs, _ = fit(data, spec, split, seed, threads=threads, device=device)
    with torch.inference_mode():
        tail_scores = network(torch.from_numpy(data.matrix[split:])).numpy()
    created: dict[str, JsonValue] = {
        "trainer": "millrace.torch",
        "torch": torch.__version__.split("+")[0],
        "seed": seed,
        "epochs_run": epochs,
        "spec": spec.describe(),
    }
    if threads != 1 or device != "cpu":
        created |= {"threads": threads, "device": device}
    found = figures(data.labels[split:].astype(np.int64), tail_scores)
    dataset: dict[str, JsonValue] = {**data.manifest, "rows": len(data.matrix), "tail_rows": len(tail_scores)}
    provenance = Provenance(dataset, found, created)
    return build_artefact(spec.architecture, network, data.features, golden_rows(data.matrix), provenance)


def fit(
    data: Dataset, spec: Spec, split: int, seed: int, *, threads: int = 1, device: str = "cpu"
) -> tuple[Network, int, int]:
    """The network of the epoch that was best on the rows from `split` on, on the CPU; epochs run, and the best.

    Without a row behind `split` it runs all epochs and the last one counts.
    """
    with reproducible(seed, threads):
        network = Network(spec.architecture, spec.dtype)
        _fit_scaling(network, data.matrix[:split], spec.architecture)
        network.to(device)
        epochs, best = _Fit(network, spec, seed, data).run(split)
        return network.cpu().eval(), epochs, best


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
    if (data.labels == data.labels[0]).all():
        raise Refused("every label is of one class; training needs both: wait for the other outcome")
    if not np.isfinite(data.matrix).all():
        raise Refused("a feature is NaN or infinite; correct its declaration or its source")


@contextmanager
def reproducible(seed: int, threads: int = 1) -> Iterator[None]:
    """A fixed number of threads and seeded numbers: sums in one order, so that the weights are bit-equal."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)


def spread_of(head: Floats) -> Floats:
    """The deviation of each column float64[k]; 1 where it is constant, up to what rounding gives."""
    spread: Floats = head.std(axis=0)
    return np.where(spread > 1e-12 * np.abs(head).max(axis=0, initial=0.0), spread, 1.0)


def _fit_scaling(network: Network, head: Floats, architecture: Linear | Mlp) -> None:
    mean, scale = head.mean(axis=0), spread_of(head)
    codes = [category.input for category in architecture.categorical] if isinstance(architecture, Mlp) else []
    mean[codes], scale[codes] = 0.0, 1.0
    network.scaling.mean.copy_(torch.from_numpy(mean))
    network.scaling.scale.copy_(torch.from_numpy(scale))


class _Fit:
    """AdamW on log loss, the best epoch on the tail kept."""

    def __init__(self, network: Network, spec: Spec, seed: int, data: Dataset) -> None:
        self._network, self._spec, self._data = network, spec, data
        self._shuffle = torch.Generator().manual_seed(seed)
        self._optimiser = torch.optim.AdamW(
            network.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay
        )

    def run(self, split: int) -> tuple[int, int]:
        """Fit on the rows before `split`; leaves the best weights in the network. Epochs run, and the best."""
        device = self._network.scaling.mean.device
        with torch.no_grad():
            scaled = self._network.scaling(torch.from_numpy(self._data.matrix).to(device))
        # Codes of categories must not be rounded; numbers are cheaper in the network's own type.
        inputs = scaled if self._network.codes else scaled.to(self._network.dtype)
        truth, weights = (each.to(device) for each in self._targets(split))
        best, best_loss, best_epoch, epoch = self._copy(), float("inf"), 0, 0
        for epoch in range(1, self._spec.epochs + 1):
            self._epoch(inputs[:split], truth[:split], weights[:split])
            if split == len(inputs):
                continue
            with torch.inference_mode():
                loss = float(self._loss(inputs[split:], truth[split:], weights[split:]))
            if loss < best_loss:
                best, best_loss, best_epoch = self._copy(), loss, epoch
            elif epoch - best_epoch >= self._spec.patience:
                break
        if split == len(inputs):
            return epoch, epoch
        self._network.load_state_dict(best)
        return epoch, best_epoch

    def _targets(self, split: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Classes and weights, in the types that the loss takes."""
        classes = self._data.labels.astype(np.int64)
        weights = np.ones(len(classes)) if self._data.weights is None else self._data.weights.copy()
        if self._spec.balance:
            weights *= balance_of(classes[:split], self._spec.architecture.classes)[classes]
        dtype = self._network.dtype
        truth = torch.from_numpy(classes)
        binary = self._spec.architecture.classes == 2
        return truth.to(dtype) if binary else truth, torch.from_numpy(weights).to(dtype)

    def _epoch(self, inputs: torch.Tensor, truth: torch.Tensor, weights: torch.Tensor) -> None:
        order = torch.randperm(len(inputs), generator=self._shuffle).to(inputs.device)
        size = min(self._spec.batch_rows, max(32, len(inputs) // STEPS))
        for rows in torch.split(order, size):
            self._optimiser.zero_grad()
            self._loss(inputs[rows], truth[rows], weights[rows]).backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()

    def _loss(self, inputs: torch.Tensor, truth: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        logits = self._network.logits(inputs)
        if logits.dim() == 1:
            return torch.nn.functional.binary_cross_entropy_with_logits(logits, truth, weight=weights)
        losses = torch.nn.functional.cross_entropy(logits, truth, reduction="none")
        return (losses * weights).mean()

    def _copy(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in self._network.state_dict().items()}
