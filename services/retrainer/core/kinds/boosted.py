"""Gradient-boosted trees: grown by scikit-learn on histograms, written down as plain arrays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import JsonValue
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from services.retrainer.core.kinds.balance import weights_of
from services.retrainer.core.kinds.rows import Floats, Ints, Plan, TrainingRows, several
from shared.models.building import Features, Provenance, build_trees
from shared.models.ensemble import Ensemble
from shared.models.manifest import Artefact, Trees
from shared.models.sessions import TreeNetwork

# The share of the newest rows on which the number of trees is chosen.
INNER_TAIL = 0.15
ROUNDS = 300
PATIENCE = 15
# A class that the rows do not show has this many nats less than the rarest that they do.
UNSEEN = 3.0


@dataclass(frozen=True, slots=True)
class FittedTrees:
    """Trees as arrays, and how they were grown."""

    architecture: Trees
    ensemble: Ensemble
    made: dict[str, JsonValue]

    def outputs(self, matrix: Floats) -> Floats:
        """P(positive class) float64[n], or float64[n, classes]."""
        return TreeNetwork(self.ensemble, self.architecture).numpy(np.ascontiguousarray(matrix))

    def artefact(self, features: Features, samples: Floats, provenance: Provenance) -> Artefact:
        """Freeze them."""
        return build_trees(self.architecture, self.ensemble, features, samples, provenance)

    def describe(self) -> dict[str, JsonValue]:
        """Trainer, version, rounds."""
        from sklearn import __version__

        return {"trainer": "millrace.trees", "scikit_learn": __version__, **self.made}


def fit_trees(rows: TrainingRows, plan: Plan) -> FittedTrees:
    """Boosting on log loss; its rounds are chosen on the newest rows, then all rows teach for as many."""
    several(rows)
    split = len(rows) - max(1, int(len(rows) * INNER_TAIL))
    targets = rows.targets
    head, tail = slice(None, split), slice(split, None)
    weights = weights_of(rows, plan)
    model = _classifier(len(rows), plan.seed)
    # A class that only the tail shows cannot be judged by trees that never saw it.
    known = np.isin(targets[tail], targets[head])
    with threadpool_limits(plan.threads):
        if known.any() and len(np.unique(targets[head])) > 1:
            model.set_params(early_stopping=True, n_iter_no_change=PATIENCE)
            model.fit(
                rows.matrix[head],
                targets[head],
                None if weights is None else weights[head],
                X_val=rows.matrix[tail][known],
                y_val=targets[tail][known],
                sample_weight_val=None if weights is None else weights[tail][known],
            )
            rounds = int(np.argmax(model.validation_score_[1:])) + 1
        else:
            rounds = ROUNDS // 10
        model.set_params(early_stopping=False, max_iter=rounds)
        model.fit(rows.matrix, targets, weights)
    architecture, ensemble = arrays_of(model, rows.matrix.shape[1], rows.class_count)
    made: dict[str, JsonValue] = {"rounds": rounds, "seed": plan.seed, "balance": plan.balance}
    return FittedTrees(architecture, ensemble, {**made, "threads": plan.threads, "device": "cpu"})


def _classifier(rows: int, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    class Plain(HistGradientBoostingClassifier):  # type: ignore[misc]
        """Bins hold as many rows each, whatever these count for: weighing them took longer than the trees."""

        def _bin_data(self, X: Any, sample_weight: Any, is_training_data: bool) -> Any:  # noqa: ARG002, N803
            return super()._bin_data(X, None, is_training_data)

    return Plain(
        max_iter=ROUNDS,
        learning_rate=0.06,
        max_leaf_nodes=15,
        min_samples_leaf=int(np.clip(rows // 100, 5, 20)),
        l2_regularization=1.0,
        early_stopping=False,
        random_state=seed,
    )


def arrays_of(model: Any, inputs: int, classes: int) -> tuple[Trees, Ensemble]:
    """A fitted HistGradientBoostingClassifier over classes numbered from 0, of which it may lack some."""
    seen: Ints = np.asarray(model.classes_, np.int64)
    outputs = 1 if classes == 2 else classes
    baseline = np.asarray(model._baseline_prediction, np.float64).ravel()
    # Of two classes seen it grows one tree a round, for the second; the first one's sum stays 0.
    places = np.array([0]) if outputs == 1 else seen[-len(baseline) :]
    sums = np.zeros(outputs)
    sums[places] = baseline
    if outputs > 1:
        sums[np.setdiff1d(np.arange(classes), seen)] = sums[seen].min() - UNSEEN
    writer = _Writer()
    for trees in model._predictors:
        for place, tree in zip(places.tolist(), trees, strict=True):
            writer.add(tree.nodes, place)
    architecture = Trees(inputs=inputs, trees=len(writer.roots), nodes=writer.nodes, classes=classes)
    return architecture, writer.ensemble(sums)


class _Writer:
    """Trees of scikit-learn, one after the other, as runs of splits and of leaves."""

    def __init__(self) -> None:
        self.roots: list[int] = []
        self.nodes = self._leaves = 0
        self._splits: list[Any] = []
        self._values: list[Any] = []

    def add(self, nodes: Any, place: int) -> None:
        """One tree, whose leaves add to the output `place`; a lone leaf becomes a split of two alike."""
        self.roots.append(self.nodes)
        if len(nodes) == 1:
            value = float(nodes["value"][0])
            split = np.array([[0, self._leaves, 1, self._leaves + 1, 1]])
            self._append(np.zeros(1), split, np.array([value, value]), place)
            return
        leaf = nodes["is_leaf"].astype(np.bool_)
        number = np.where(leaf, self._leaves + np.cumsum(leaf) - 1, self.nodes + np.cumsum(~leaf) - 1)
        inner = nodes[~leaf]
        left, right = inner["left"].astype(np.int64), inner["right"].astype(np.int64)
        columns = (
            inner["feature_idx"].astype(np.int64),
            number[left],
            leaf[left],
            number[right],
            leaf[right],
        )
        split = np.column_stack(columns).astype(np.int64)
        self._append(inner["num_threshold"].astype(np.float64), split, nodes["value"][leaf], place)

    def _append(self, splits: Floats, links: Ints, values: Floats, place: int) -> None:
        self._splits.append((splits, links))
        self._values.append((values.astype(np.float64), np.full(len(values), place)))
        self.nodes += len(splits)
        self._leaves += len(values)

    def ensemble(self, baseline: Floats) -> Ensemble:
        """All of them."""
        links = np.concatenate([each for _, each in self._splits])
        return Ensemble(
            splits=np.concatenate([each for each, _ in self._splits]),
            features=links[:, 0],
            low=links[:, 1],
            low_leaf=links[:, 2],
            high=links[:, 3],
            high_leaf=links[:, 4],
            values=np.concatenate([each for each, _ in self._values]),
            targets=np.concatenate([each for _, each in self._values]),
            roots=np.array(self.roots, np.int64),
            baseline=baseline,
        )
