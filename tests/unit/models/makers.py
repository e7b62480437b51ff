"""Small artefacts and announcements, honest ones and forged ones."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from shared.models.announcement import Announcement
from shared.models.architectures import Network
from shared.models.building import Features, Provenance, build_artefact
from shared.models.manifest import Artefact, Dtype, Linear, Manifest, Mlp, describe
from shared.models.safety import Tensor, read_tensors, write_tensors

NAMES = ("amount", "count", "risk")
FINGERPRINT = "ab" * 32
DIGEST = "cd" * 32
FEATURES = Features(NAMES, FINGERPRINT)


def samples(rows: int = 8, width: int = 3, seed: int = 1) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(seed).normal(size=(rows, width))


def artefact(architecture: Linear | Mlp | None = None, dtype: Dtype = "float32", seed: int = 7) -> Artefact:
    """A random network over three features."""
    architecture = architecture or Mlp(inputs=3, hidden=(4, 2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(architecture, dtype)
    return build_artefact(architecture, network, FEATURES, samples(), Provenance({}, {}, {"seed": seed}))


def weights(of: Artefact) -> dict[str, Tensor]:
    return read_tensors(of.files[of.manifest.weights])


def rebound(of: Artefact, files: dict[str, bytes], **manifest: Any) -> Artefact:
    """Other files or manifest fields, with sums that are right again: an attacker who can write artefacts."""
    merged = {**of.files, **files}
    fields = {**of.manifest.model_dump(), "files": describe(merged), **manifest}
    return Artefact(Manifest.model_validate(fields), merged)


def with_weights(of: Artefact, **changes: Tensor) -> Artefact:
    named = {name.replace("__", "."): tensor for name, tensor in changes.items()}
    return rebound(of, {of.manifest.weights: write_tensors({**weights(of), **named})})


def announcement(version: int = 1, sequence: int | None = None, **changes: Any) -> Announcement:
    """Unsigned; each version has its own digest."""
    said = Announcement(
        name="fraud",
        version=version,
        digest=f"{version:064x}",
        feature_fingerprint=FINGERPRINT,
        sequence=version if sequence is None else sequence,
        issued_at=1_000,
    )
    return replace(said, **changes)
