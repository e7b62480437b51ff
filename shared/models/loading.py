"""From verified bytes to a model that may serve: every check between an artefact and the first prediction."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from shared.models.architectures import Network, empty
from shared.models.manifest import Artefact, Manifest
from shared.models.safety import ModelRefused, Tensor, read_tensors

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A network that passed its golden samples on `device`, with the manifest that describes it."""

    manifest: Manifest
    digest: str
    network: Network
    device: torch.device

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The inputs, in order."""
        return self.manifest.feature_names


def load_model(
    artefact: Artefact, fingerprint: str, feature_names: Sequence[str], device: str | torch.device = "cpu"
) -> LoadedModel:
    """Build the network and prove it; ModelRefused with the first thing that is wrong.

    `fingerprint` and `feature_names` are the pipeline's, as it is declared now.
    The artefact's digest has been verified by the store.
    """
    check_manifest(artefact.manifest, fingerprint, feature_names)
    manifest = artefact.manifest
    model = LoadedModel(manifest, artefact.digest, _network(artefact), torch.device(device))
    model.network.to(model.device)
    check_golden(model, artefact.files[manifest.golden.file])
    return model


def check_manifest(manifest: Manifest, fingerprint: str, feature_names: Sequence[str]) -> None:
    """Refuse a model for other features or with other outputs than the pipeline's, by what it says of itself."""
    if manifest.feature_fingerprint != fingerprint:
        raise ModelRefused(
            "features.mismatch",
            f"trained for features {manifest.feature_fingerprint[:12]}, this pipeline has {fingerprint[:12]};"
            " train on the pipeline as it is declared now",
        )
    if manifest.feature_names != tuple(feature_names):
        raise ModelRefused("features.mismatch", "the manifest names other features than the pipeline")
    if manifest.architecture.classes != 2:
        raise ModelRefused("outputs.mismatch", f"{manifest.architecture.classes} classes; only 2 are served")


def _network(artefact: Artefact) -> Network:
    manifest = artefact.manifest
    tensors = read_tensors(artefact.files[manifest.weights])
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
    """Inputs float64[m, k] and outputs float64[m]; ModelRefused where the file holds anything else."""
    manifest = artefact.manifest
    return _golden(manifest, artefact.files[manifest.golden.file])


def _golden(manifest: Manifest, data: bytes) -> tuple[Floats, Floats]:
    tensors = read_tensors(data)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    rows = manifest.golden.rows
    if shapes != {"inputs": (rows, manifest.architecture.inputs), "outputs": (rows,)}:
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
    if any(((part < 0) | (part > 1)).any() for part in (scores, expected)):
        raise ModelRefused("golden.range", "a golden output is no probability in [0, 1]")
    worst = float(np.abs(scores - expected).max())
    if worst > model.manifest.golden.tolerance:
        raise ModelRefused(
            "golden.mismatch",
            f"off by {worst:.3g} on a golden sample, {model.manifest.golden.tolerance:g} is allowed",
        )
