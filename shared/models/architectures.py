"""The networks that a manifest can name, as torch modules: scaling first, a score last."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from shared.models.manifest import Category, Dtype, Linear, Mlp

DTYPES: dict[Dtype, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}


class Scaling(nn.Module):
    """(x - mean) / scale in float64, whatever the weights' type: times and amounts need the digits."""

    mean: Tensor
    scale: Tensor

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(inputs, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """float64[n, inputs] to float64[n, inputs]."""
        return (x - self.mean) / self.scale


class Embedding(nn.Module):
    """Codes to rows of a table [values + 1, width]; what is no code of the table takes its last row."""

    def __init__(self, category: Category, dtype: torch.dtype) -> None:
        super().__init__()
        self.values = category.values
        self.weight = nn.Parameter(torch.empty(category.values + 1, category.width, dtype=dtype))
        nn.init.normal_(self.weight, std=0.1)

    def forward(self, codes: Tensor) -> Tensor:
        """float64[n] to [n, width]."""
        known = (codes >= 0) & (codes < self.values) & (codes == codes.floor())
        rows = torch.where(known, codes, float(self.values)).long()
        return nn.functional.embedding(rows, self.weight)


class Network(nn.Module):
    """Scaling and embeddings, then fully connected layers with ReLU between: `linear` has one, `mlp` several."""

    def __init__(self, architecture: Linear | Mlp, dtype: Dtype) -> None:
        super().__init__()
        self.dtype = DTYPES[dtype]
        self.scaling = Scaling(architecture.inputs)
        widths = architecture.widths
        categories = architecture.categorical if isinstance(architecture, Mlp) else ()
        self.codes = [category.input for category in categories]
        self.numbers = [place for place in range(architecture.inputs) if place not in set(self.codes)]
        self.embeddings = nn.ModuleList(Embedding(category, self.dtype) for category in categories)
        self.layers = nn.ModuleList(nn.Linear(a, b, dtype=self.dtype) for a, b in pairwise(widths))

    def logits(self, scaled: Tensor) -> Tensor:
        """Scaled features [n, inputs] to logits: [n] for two classes, [n, classes] for more."""
        x = self._embedded(scaled) if self.codes else scaled.to(self.dtype)
        *inner, last = self.layers
        for layer in inner:
            x = torch.relu(layer(x))
        out: Tensor = last(x)
        return out.squeeze(-1) if out.shape[-1] == 1 else out

    def _embedded(self, scaled: Tensor) -> Tensor:
        tables = (table(scaled[:, at]) for at, table in zip(self.codes, self.embeddings, strict=True))
        return torch.cat([scaled[:, self.numbers].to(self.dtype), *tables], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """float64[n, inputs] to float64 probabilities: [n] of the positive class, or [n, classes]."""
        logits = self.logits(self.scaling(x)).double()
        return torch.sigmoid(logits) if logits.dim() == 1 else torch.softmax(logits, -1)


def empty(architecture: Linear | Mlp, dtype: Dtype) -> Network:
    """The network without memory for its weights, to be filled by `load_state_dict(..., assign=True)`."""
    with torch.device("meta"):
        return Network(architecture, dtype)
