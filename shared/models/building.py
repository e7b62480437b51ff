"""From a trained network to an artefact: weights, golden samples and the manifest that binds them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from pydantic import JsonValue

from shared.models.architectures import Network
from shared.models.ensemble import Ensemble, write_onnx
from shared.models.manifest import Artefact, Budget, Dtype, Golden, Linear, Manifest, Mlp, Trees, describe
from shared.models.safety import Tensor, write_tensors
from shared.models.sessions import TreeNetwork

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
    tensors = {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
    weights = ("weights.safetensors", write_tensors(tensors))
    return _bind(architecture, dtype, weights, {"inputs": samples, "outputs": outputs}, features, provenance)


def build_trees(
    architecture: Trees, ensemble: Ensemble, features: Features, samples: Floats, provenance: Provenance
) -> Artefact:
    """Freeze boosted trees: `samples` float64[m, k] become the golden inputs, scored by onnxruntime."""
    ensemble.check(architecture)
    outputs = TreeNetwork(ensemble, architecture).numpy(samples)
    weights = ("model.onnx", write_onnx(ensemble, architecture))
    golden: dict[str, Tensor] = {"inputs": samples, "outputs": outputs}
    return _bind(architecture, "float64", weights, golden, features, provenance)


def untrained(features: Features, classes: int = 2) -> Artefact:
    """A linear model that knows nothing: 0.5 for every vector, or the same for each class."""
    architecture = Linear(inputs=len(features.names), classes=classes)
    network = Network(architecture, "float64")
    with torch.no_grad():
        for layer in network.layers.parameters():
            layer.zero_()
    samples = np.zeros((1, len(features.names)))
    provenance = Provenance({}, {}, {"trainer": "millrace.untrained"})
    return build_artefact(architecture, network, features, samples, provenance)


def _bind(
    architecture: Linear | Mlp | Trees,
    dtype: Dtype,
    weights: tuple[str, bytes],
    samples: dict[str, Tensor],
    features: Features,
    provenance: Provenance,
) -> Artefact:
    golden = Golden(rows=len(samples["inputs"]), tolerance=TOLERANCES[dtype])
    files = dict([weights, (golden.file, write_tensors(samples))])
    manifest = Manifest(
        architecture=architecture,
        dtype=dtype,
        weights=weights[0],
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
