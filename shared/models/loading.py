"""From verified bytes to a model that may serve: every check between an artefact and the first prediction."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from shared.models.architectures import Network, empty
from shared.models.ensemble import read_onnx
from shared.models.manifest import Artefact, Manifest, Trees
from shared.models.outputs import improper, output_shape
from shared.models.safety import ModelRefused, Tensor, read_tensors
from shared.models.sessions import TreeNetwork

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that passed its golden samples on `device`, with the manifest that describes it.

    `network` takes float64[n, k] and gives float64[n], or float64[n, classes] where there are more than two;
    it is a torch module, or trees that run on CPU only.
    """

    manifest: Manifest
    digest: str
    network: Network | TreeNetwork
    device: torch.device

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The inputs, in order."""
        return self.manifest.feature_names

    @property
    def classes(self) -> int:
        """How many classes it tells apart."""
        return self.manifest.architecture.classes

    @property
    def centre(self) -> Floats:
        """A plausible vector float64[k]: the means that the features were scaled by, or zeros."""
        if isinstance(self.network, Network):
            return np.asarray(self.network.scaling.mean.cpu().numpy(), np.float64)
        return np.zeros(len(self.feature_names), np.float64)


def load_model(
    artefact: Artefact,
    fingerprint: str,
    feature_names: Sequence[str],
    device: str | torch.device = "cpu",
    classes: int = 2,
) -> LoadedModel:
    """Build the network and prove it; ModelRefused with the first thing that is wrong.

    `fingerprint`, `feature_names` and `classes` are the pipeline's, as it is declared now.
    The artefact's digest has been verified by the store.
    """
    check_manifest(artefact.manifest, fingerprint, feature_names, classes)
    manifest = artefact.manifest
    network: Network | TreeNetwork
    if isinstance(manifest.architecture, Trees):
        ensemble = read_onnx(artefact.files[manifest.weights], manifest.architecture)
        network, device = TreeNetwork(ensemble, manifest.architecture), "cpu"
    else:
        network = _network(artefact).to(torch.device(device))
    model = LoadedModel(manifest, artefact.digest, network, torch.device(device))
    check_golden(model, artefact.files[manifest.golden.file])
    return model


def check_manifest(
    manifest: Manifest, fingerprint: str, feature_names: Sequence[str], classes: int = 2
) -> None:
    """Refuse a model for other features or with other outputs than the pipeline's, by what it says of itself."""
    if manifest.feature_fingerprint != fingerprint:
        raise ModelRefused(
            "features.mismatch",
            f"trained for features {manifest.feature_fingerprint[:12]}, this pipeline has {fingerprint[:12]};"
            " train on the pipeline as it is declared now",
        )
    if manifest.feature_names != tuple(feature_names):
        raise ModelRefused("features.mismatch", "the manifest names other features than the pipeline")
    if manifest.architecture.classes != classes:
        detail = f"tells {manifest.architecture.classes} classes apart, this pipeline has {classes}"
        raise ModelRefused("outputs.mismatch", detail)


def _network(artefact: Artefact) -> Network:
    manifest = artefact.manifest
    tensors = read_tensors(artefact.files[manifest.weights])
    if isinstance(manifest.architecture, Trees):
        raise TypeError("trees are no network")
    network = empty(manifest.architecture, manifest.dtype)
    expected = network.state_dict()
    if set(expected) != set(tensors):
        wrong = sorted(set(expected) ^ set(tensors))
        raise ModelRefused("weights.shape", f"{wrong[0][:80]!r} is missing or one too many")
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, expected[name])
    if not (tensors["scaling.scale"] > 0).all():
        raise ModelRefused("weights.shape", "scaling.scale must be above zero")
    network.load_state_dict({n: torch.from_numpy(t) for n, t in tensors.items()}, assign=True)
    return network.eval().requires_grad_(False)


def _check_tensor(name: str, tensor: Tensor, expected: torch.Tensor) -> None:
    if tensor.shape != tuple(expected.shape):
        raise ModelRefused("weights.shape", f"{name} is {tensor.shape}, expected {tuple(expected.shape)}")
    if str(tensor.dtype) != str(expected.dtype).removeprefix("torch."):
        raise ModelRefused("dtype.mismatch", f"{name} is {tensor.dtype}, expected {expected.dtype}")


def golden_samples(artefact: Artefact) -> tuple[Floats, Floats]:
    """Inputs float64[m, k] and outputs float64[m] or [m, classes]; ModelRefused for any other content."""
    manifest = artefact.manifest
    return _golden(manifest, artefact.files[manifest.golden.file])


def _golden(manifest: Manifest, data: bytes) -> tuple[Floats, Floats]:
    tensors = read_tensors(data)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    rows = manifest.golden.rows
    outputs = output_shape(rows, manifest.architecture.classes)
    if shapes != {"inputs": (rows, manifest.architecture.inputs), "outputs": outputs}:
        raise ModelRefused("weights.shape", f"golden samples have {shapes}")
    if any(tensor.dtype != np.float64 for tensor in tensors.values()):
        raise ModelRefused("dtype.mismatch", "golden samples are not float64")
    return tensors["inputs"].astype(np.float64), tensors["outputs"].astype(np.float64)


def check_golden(model: LoadedModel, data: bytes) -> None:
    """Score the golden inputs; ModelRefused `golden.*` unless every output is what it was in training."""
    inputs, expected = _golden(model.manifest, data)
    with torch.inference_mode():
        scores = model.network(torch.from_numpy(inputs).to(model.device)).cpu().numpy()
    if not np.isfinite(scores).all():
        raise ModelRefused("golden.nonfinite", "the model gives NaN or infinity on its golden samples")
    if improper(scores).any() or improper(expected).any():
        raise ModelRefused("golden.range", "a golden output is no probability in [0, 1]")
    worst = float(np.abs(scores - expected).max())
    if worst > model.manifest.golden.tolerance:
        raise ModelRefused(
            "golden.mismatch",
            f"off by {worst:.3g} on a golden sample, {model.manifest.golden.tolerance:g} is allowed",
        )
