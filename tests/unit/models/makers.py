"""Small artefacts and announcements, honest ones and forged ones."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from shared.models.announcement import Announcement
from shared.models.architectures import Network
from shared.models.building import Features, Provenance, build_artefact, build_trees
from shared.models.ensemble import Ensemble
from shared.models.manifest import Artefact, Dtype, Linear, Manifest, Mlp, Trees, describe
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


def ensemble(outputs: int = 1) -> Ensemble:
    """Two trees an output over three features, the first of two splits, the second of one."""
    trees = 2 * outputs
    low: list[int] = []
    low_leaf: list[int] = []
    high: list[int] = []
    high_leaf: list[int] = []
    roots: list[int] = []
    targets: list[int] = []
    nodes = leaves = 0
    for tree in range(trees):
        roots.append(nodes)
        if tree % 2 == 0:
            low, low_leaf = [*low, leaves, leaves + 1], [*low_leaf, 1, 1]
            high, high_leaf = [*high, nodes + 1, leaves + 2], [*high_leaf, 0, 1]
        else:
            low, low_leaf = [*low, leaves], [*low_leaf, 1]
            high, high_leaf = [*high, leaves + 1], [*high_leaf, 1]
        size = 2 - tree % 2
        targets += [tree // 2] * (size + 1)
        nodes, leaves = nodes + size, leaves + size + 1
    random = np.random.default_rng(outputs)
    return Ensemble(
        splits=random.normal(size=nodes),
        features=random.integers(0, 3, nodes),
        low=np.array(low),
        low_leaf=np.array(low_leaf),
        high=np.array(high),
        high_leaf=np.array(high_leaf),
        values=random.normal(size=leaves),
        targets=np.array(targets),
        roots=np.array(roots),
        baseline=random.normal(size=outputs),
    )


def trees(classes: int = 2) -> Artefact:
    """Boosted trees over three features."""
    outputs = 1 if classes == 2 else classes
    architecture = Trees(inputs=3, trees=2 * outputs, nodes=3 * outputs, classes=classes)
    return build_trees(architecture, ensemble(outputs), FEATURES, samples(), Provenance({}, {}, {}))
