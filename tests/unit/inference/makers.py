"""A scorer whose network fails where it is told to, and feature batches."""

from typing import Any

import numpy as np
import torch

from services.inference.core.scoring import Scorer
from shared.codec.batch import Batch, Floats, Strings
from shared.models.architectures import Network
from shared.models.loading import LoadedModel, load_model
from tests.unit.models.makers import FINGERPRINT, NAMES, artefact

POISON = 666.0
WEIRD = 777.0


class Touchy(Network):
    """Raises for any batch that holds POISON; gives NaN, or 2.0 for a negative, where it meets WEIRD."""

    calls: list[int]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(x))
        if (x == POISON).any():
            raise RuntimeError("cannot digest this")
        out = super().forward(x)
        out = torch.where((x == WEIRD).any(-1), torch.nan, out)
        return torch.where((x == -WEIRD).any(-1), 2.0, out)


def loaded(seed: int = 7) -> LoadedModel:
    return load_model(artefact(seed=seed), FINGERPRINT, NAMES)


def touchy() -> tuple[Scorer, list[int]]:
    """A scorer over a network that can be upset, and the sizes of the batches it was given."""
    model = loaded()
    network = model.network
    network.__class__ = Touchy
    calls: list[int] = []
    object.__setattr__(network, "calls", calls)
    return Scorer(model), calls


def feature_batch(matrix: Floats, first_offset: int = 0) -> Batch:
    rows = len(matrix)
    index = np.arange(rows, dtype=np.int64) + first_offset
    columns: dict[str, Any] = {
        "event_id": Strings.of([f"e{i}".encode() for i in index]),
        "key": Strings.of([f"k{i % 3}".encode() for i in index]),
        "event_time": index * 10,
        "order_time": index * 10 + 1,
        "late": index % 2 == 0,
        "source_partition": np.zeros(rows, np.int64),
        "source_offset": index,
        "input_partition": np.full(rows, 3, np.int64),
        "input_offset": index,
        "feature_hash": index * 7 - 50,
    }
    return Batch.of(columns | {f"features.{name}": matrix[:, j].copy() for j, name in enumerate(NAMES)})
