"""Streams with a known change, from river's generators, answered by a model that was trained before it."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from river.datasets import synth
from sklearn.ensemble import HistGradientBoostingClassifier

from services.drift.core.records import LabeledRows

TRAIN, CALM, AFTER = 4_000, 3_000, 2_500
RAMP = 1_500
"""Rows over which a gradual change comes: rows of the new world among those of the old, ever more."""
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Make = Callable[[int], Iterable[tuple[dict[Any, float], Any]]]


@dataclass(frozen=True)
class Case:
    """A world before and after; `gradual` where it moves, or comes by a ramp."""

    name: str
    family: str
    before: Make
    after: Make
    gradual: bool = False


def rows_of(stream: Iterable[tuple[dict[Any, float], Any]], rows: int) -> tuple[Floats, Floats]:
    """The first rows as arrays."""
    taken = list(itertools.islice(iter(stream), rows))
    return np.array([list(x.values()) for x, _ in taken], np.float64), np.array([float(y) for _, y in taken])


def _sea(variant: int, noise: float, seed: int) -> Any:
    return synth.SEA(variant=variant, noise=noise, seed=seed)


def _agrawal(function: int, perturbation: float, seed: int) -> Any:
    return synth.Agrawal(classification_function=function, perturbation=perturbation, seed=seed)


def _rbf(model: int, classes: int, speed: float, seed: int) -> Any:
    return synth.RandomRBFDrift(
        seed_model=model, seed_sample=seed, n_classes=classes, n_centroids=20, n_drift_centroids=20,
        change_speed=speed,
    )  # fmt: skip


def _led(features: int, noise: float, seed: int) -> Any:
    return synth.LEDDrift(
        seed=seed, noise_percentage=noise, irrelevant_features=True, n_drift_features=features
    )


def _friedman(kind: str, concept: int, seed: int) -> Any:
    """One concept of FriedmanDrift throughout, binarised at the first one's median, 14.4."""
    far = 10**9
    position = tuple(range(1, concept + 1)) + tuple(far + i for i in range(3 - concept))
    position = position if kind == "lea" else position[:2]
    stream = synth.FriedmanDrift(drift_type=kind, position=position, transition_window=0, seed=seed)
    return ((x, y > 14.4) for x, y in itertools.islice(iter(stream), 3, None))


def cases() -> list[Case]:
    """Every change that is tried; gradual ones are the third abrupt one each, spread out."""
    found: list[Case] = []
    for noise in (0.0, 0.1):
        for a, b in ((0, 1), (0, 2), (0, 3), (1, 2), (2, 3), (3, 2)):
            name = f"SEA {a} to {b}, noise {noise:.0%}"
            found.append(Case(name, "SEA", partial(_sea, a, noise), partial(_sea, b, noise)))
    for perturbation in (0.0, 0.05):
        for a, b in ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8), (8, 9), (0, 5)):
            name = f"Agrawal {a} to {b}, perturbed {perturbation:.0%}"
            before, after = partial(_agrawal, a, perturbation), partial(_agrawal, b, perturbation)
            found.append(Case(name, "Agrawal", before, after))
    for classes in (2, 4):
        still, other, moving = (
            partial(_rbf, model, classes, speed) for model, speed in ((1, 0.0), (2, 0.0), (1, 0.005))
        )
        found.append(Case(f"RBF other, {classes} classes", "RandomRBF", still, other))
        found.append(Case(f"RBF moving, {classes} classes", "RandomRBF", still, moving, gradual=True))
    for noise in (0.0, 0.1):
        for features in (1, 3, 5, 7):
            name = f"LED {features} swapped, noise {noise:.0%}"
            before, after = partial(_led, 0, noise), partial(_led, features, noise)
            found.append(Case(name, "LED", before, after))
    found.append(
        Case("Friedman global", "Friedman", partial(_friedman, "gra", 0), partial(_friedman, "gra", 1))
    )
    found.append(Case("Friedman gsg", "Friedman", partial(_friedman, "gsg", 0), partial(_friedman, "gsg", 1)))
    for concept in (1, 2, 3):
        before, after = partial(_friedman, "lea", concept - 1), partial(_friedman, "lea", concept)
        found.append(Case(f"Friedman local {concept}", "Friedman", before, after))
    ramps = [replace(c, name=c.name + ", ramp", gradual=True) for c in found if not c.gradual]
    return found + ramps[::3]


class Served:
    """A boosted-tree model trained on the first rows; answers the rest as labelled rows would stand in the log."""

    def __init__(self, features: Floats, labels: Floats) -> None:
        self.classes = np.unique(labels)
        self._model = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=15, random_state=0)
        self._model.fit(features, labels)

    def answer(self, features: Floats, labels: Floats, start: int) -> LabeledRows:
        """Rows with sequences from `start` on; a second apart."""
        chances = self._model.predict_proba(features)
        predicted = chances.argmax(1)
        binary = len(self.classes) == 2
        sequence = np.arange(start, start + len(labels), dtype=np.int64)
        label = np.searchsorted(self.classes, labels).astype(np.int64)
        return LabeledRows(
            sequence,
            sequence * 1000,
            label,
            predicted.astype(np.int64),
            chances[:, 1].copy() if binary else chances.max(1),
            features,
            np.ones(len(labels), np.int64),
            None if binary else chances,
        )


def stream(case: Case, seed: int) -> tuple[LabeledRows, int]:
    """Labelled rows of a case, CALM of them before the change and AFTER since, and the number of classes."""
    features, labels = rows_of(case.before(seed), TRAIN + CALM + AFTER)
    others, other_labels = rows_of(case.after(seed + 1000), AFTER)
    share = np.ones(AFTER)
    if case.gradual and "ramp" in case.name:
        share = np.minimum(np.arange(AFTER) / RAMP, 1.0)
    new = np.random.default_rng(seed).random(AFTER) < share
    tail = slice(TRAIN + CALM, None)
    features[tail] = np.where(new[:, None], others, features[tail])
    labels[tail] = np.where(new, other_labels, labels[tail])
    model = Served(features[:TRAIN], labels[:TRAIN])
    return model.answer(features[TRAIN:], labels[TRAIN:], 0), len(model.classes)
