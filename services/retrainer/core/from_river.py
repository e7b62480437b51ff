"""A river pipeline of StandardScaler and LogisticRegression as an artefact that scores the same."""

from typing import Any, cast

import numpy as np
import torch
from pydantic import JsonValue

from services.retrainer.core.train import Floats
from shared.errors import Refused
from shared.models.architectures import Network
from shared.models.building import Features, Provenance, build_artefact, golden_rows
from shared.models.manifest import Artefact, Linear


def from_river(
    pipeline: Any, features: Features, samples: Floats, dataset: dict[str, JsonValue] | None = None
) -> Artefact:
    """Freeze `StandardScaler | LogisticRegression` as it stands, in float64.

    `samples` float64[m, k] become golden inputs. A feature without variance so far counts as 0, as river
    has it. Refused for any other pipeline.
    """
    scaler, regression = _parts(pipeline)
    names = features.names
    means = np.array([scaler.means.get(name, 0.0) for name in names], np.float64)
    variances = np.array([scaler.vars.get(name, 0.0) for name in names], np.float64)
    weights = np.array([regression.weights.get(name, 0.0) for name in names], np.float64)
    known = variances > 0
    architecture = Linear(inputs=len(names))
    network = Network(architecture, "float64")
    layer = cast(torch.nn.Linear, network.layers[0])
    with torch.no_grad():
        network.scaling.mean.copy_(torch.from_numpy(means))
        network.scaling.scale.copy_(torch.from_numpy(np.where(known, variances, 1.0) ** 0.5))
        layer.weight.copy_(torch.from_numpy(np.where(known, weights, 0.0))[None, :])
        layer.bias.fill_(float(regression.intercept))
    created: dict[str, JsonValue] = {"trainer": "river"}
    return build_artefact(
        architecture, network, features, golden_rows(samples), Provenance(dataset or {}, {}, created)
    )


def _parts(pipeline: Any) -> tuple[Any, Any]:
    steps = list(pipeline.steps.values()) if hasattr(pipeline, "steps") else []
    kinds = [type(step).__name__ for step in steps]
    if kinds != ["StandardScaler", "LogisticRegression"]:
        raise Refused(f"a river pipeline of {kinds}; only StandardScaler | LogisticRegression is taken over")
    scaler, regression = steps
    if not scaler.with_std or getattr(scaler, "window_size", None) is not None:
        raise Refused("the StandardScaler must divide by the deviation and have no window_size")
    return scaler, regression
