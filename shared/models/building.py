"""From a trained network to an artefact: weights, golden samples and the manifest that binds them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from pydantic import JsonValue

from shared.models.architectures import Network
from shared.models.manifest import Artefact, Budget, Dtype, Golden, Linear, Manifest, Mlp, describe
from shared.models.safety import write_tensors

Floats = npt.NDArray[np.float64]
GOLDEN_ROWS = 64
# Absolute, on a probability: what another device or batch size may change in the last digits.
TOLERANCES: dict[Dtype, float] = {"float32": 1e-5, "float64": 1e-9}


@dataclass(frozen=True, slots=True)
class Features:
    """What the model is fed: names in order, and the fingerprint of their declaration."""

    names: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the model comes from: rows, figures, and how it was made; all of it JSON."""

    dataset: dict[str, JsonValue]
    metrics: dict[str, float]
    created_from: dict[str, JsonValue]


def golden_rows(matrix: Floats) -> Floats:
    """Up to 64 rows, evenly spread over the matrix."""
    picks = np.unique(np.linspace(0, len(matrix) - 1, GOLDEN_ROWS).astype(np.int64))
    return np.ascontiguousarray(matrix[picks])


def build_artefact(
    architecture: Linear | Mlp,
    network: Network,
    features: Features,
    samples: Floats,
    provenance: Provenance,
) -> Artefact:
    """Freeze a network: `samples` float64[m, k] become the golden inputs, scored by the network itself."""
    dtype: Dtype = "float64" if network.dtype == torch.float64 else "float32"
    with torch.inference_mode():
        outputs = network.eval()(torch.from_numpy(samples)).numpy()
    weights = {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
    golden = Golden(rows=len(samples), tolerance=TOLERANCES[dtype])
    files = {
        "weights.safetensors": write_tensors(weights),
        golden.file: write_tensors({"inputs": samples, "outputs": outputs}),
    }
    manifest = Manifest(
        architecture=architecture,
        dtype=dtype,
        feature_names=features.names,
        feature_fingerprint=features.fingerprint,
        golden=golden,
        budget=Budget.estimate(architecture, dtype),
        dataset=provenance.dataset,
        metrics=provenance.metrics,
        created_from=provenance.created_from,
        files=describe(files),
    )
    return Artefact(manifest, files)
