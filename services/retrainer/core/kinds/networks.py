"""Networks: the declared one by torch, stopped early, and a logistic regression solved to its end."""

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from pydantic import JsonValue

from services.retrainer.core.kinds.balance import weights_of
from services.retrainer.core.kinds.rows import Floats, Plan, TrainingRows, several
from services.retrainer.core.train import Dataset, Spec, fit, reproducible, spread_of
from shared.errors import Refused
from shared.models.architectures import Network
from shared.models.building import Features, Provenance, build_artefact
from shared.models.manifest import Artefact, Category, Linear, Mlp

# The share of the newest rows on which the declared network's epochs are chosen.
INNER_TAIL = 0.15
# Pull of the logistic regression's weights to 0, as a share of the mean loss.
RIDGE = 1e-3


@dataclass(frozen=True, slots=True)
class FittedNetwork:
    """A network on the CPU, and how it came about."""

    architecture: Linear | Mlp
    network: Network
    made: dict[str, JsonValue]

    def outputs(self, matrix: Floats) -> Floats:
        """P(positive class) float64[n], or float64[n, classes]."""
        with torch.inference_mode():
            return np.asarray(self.network(torch.from_numpy(matrix)).numpy(), np.float64)

    def artefact(self, features: Features, samples: Floats, provenance: Provenance) -> Artefact:
        """Freeze it."""
        return build_artefact(self.architecture, self.network, features, samples, provenance)

    def describe(self) -> dict[str, JsonValue]:
        """Trainer, version, epochs or steps."""
        return {"trainer": "millrace.torch", "torch": torch.__version__.split("+")[0], **self.made}


def device_of(asked: str) -> str:
    """cpu or cuda: `auto` takes a GPU where there is one; Refused where one is asked for in vain."""
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise Refused("there is no GPU here; MILLRACE_RETRAINER__DEVICE=auto or cpu trains without")
    return ("cuda" if there else "cpu") if asked == "auto" else asked


def embedded(architecture: Linear | Mlp, rows: TrainingRows) -> Linear | Mlp:
    """The architecture for these rows: their classes, and an embedding for each category."""
    update: dict[str, object] = {"classes": rows.class_count, "inputs": rows.matrix.shape[1]}
    if isinstance(architecture, Mlp) and rows.categorical:
        update["categorical"] = tuple(
            Category(input=place, values=values, width=min(16, 1 + round(values**0.5)))
            for place, values in sorted(rows.categorical.items())
        )
    return type(architecture).model_validate({**architecture.model_dump(), **update})


def fit_network(rows: TrainingRows, plan: Plan) -> FittedNetwork:
    """The declared network; its epochs are chosen on the newest rows, then all rows teach for as many."""
    several(rows)
    architecture = embedded(plan.architecture, rows)
    spec = Spec(architecture, balance=plan.balance)
    data = Dataset(rows.features, rows.matrix, rows.targets, rows.manifest, rows.weights)
    split = len(rows) - max(1, int(len(rows) * INNER_TAIL))
    _, _, epochs = fit(data, spec, split, plan.seed, threads=plan.threads, device=plan.device)
    spec = replace(spec, epochs=max(1, epochs))
    network, _, _ = fit(data, spec, len(rows), plan.seed, threads=plan.threads, device=plan.device)
    made: dict[str, JsonValue] = {"epochs": spec.epochs, "spec": spec.describe()}
    made |= {"threads": plan.threads, "device": plan.device}
    return FittedNetwork(architecture, network, made)


def fit_linear(rows: TrainingRows, plan: Plan) -> FittedNetwork:
    """Multinomial logistic regression with a small ridge, by L-BFGS in float64: the same for any seed."""
    several(rows)
    architecture = Linear(inputs=rows.matrix.shape[1], classes=rows.class_count)
    with reproducible(plan.seed, plan.threads):
        network = Network(architecture, "float64")
        network.scaling.mean.copy_(torch.from_numpy(rows.matrix.mean(axis=0)))
        network.scaling.scale.copy_(torch.from_numpy(spread_of(rows.matrix)))
        steps = _solve(network, rows, weights_of(rows, plan))
    made: dict[str, JsonValue] = {"solver": "lbfgs", "steps": steps, "ridge": RIDGE, "balance": plan.balance}
    return FittedNetwork(architecture, network.eval(), {**made, "threads": plan.threads, "device": "cpu"})


def _solve(network: Network, rows: TrainingRows, weights: Floats | None) -> int:
    layer = cast(torch.nn.Linear, network.layers[0])
    weight, bias = layer.weight, layer.bias
    with torch.no_grad():
        inputs = network.scaling(torch.from_numpy(rows.matrix))
        weight.zero_()
        bias.zero_()
    targets = torch.from_numpy(rows.targets)
    counts = np.ones(len(rows)) if weights is None else weights
    shares = torch.from_numpy(counts / counts.sum())
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=200, history_size=10, line_search_fn="strong_wolfe", tolerance_change=1e-9
    )
    steps = 0

    def loss() -> torch.Tensor:
        nonlocal steps
        steps += 1
        solver.zero_grad()
        logits = network.logits(inputs)
        if logits.dim() == 1:
            logits = torch.stack([torch.zeros_like(logits), logits], dim=1)
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        total: torch.Tensor = (losses * shares).sum() + RIDGE * (weight**2).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    solver.step(loss)  # type: ignore[no-untyped-call]
    return steps
