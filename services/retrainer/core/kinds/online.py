"""The permanent challenger: river's logistic regression at several rates, fed row by row as outcomes come."""

import json
import math
from typing import Any, cast

import numpy as np
import torch
from pydantic import JsonValue

from services.retrainer.core.kinds.rows import Floats, TrainingRows
from shared.errors import Refused
from shared.models.architectures import Network
from shared.models.building import Features, Provenance, build_artefact, golden_rows
from shared.models.manifest import Artefact, Linear
from shared.models.safety import strict_json

FORMAT = "millrace.online.v1"
RATES = (0.005, 0.02, 0.08)
# A row's loss counts half as much after this many more.
HALF_LIFE = 500.0
_INTERCEPT = "\0intercept"


class _Rate:
    """One regression: river's LogisticRegression for two classes, SoftmaxRegression for more."""

    def __init__(self, rate: float, classes: int) -> None:
        from river import linear_model, optim

        self.rate, self.loss, self._classes = rate, 0.0, classes
        self.model: Any
        if classes == 2:
            self.model = linear_model.LogisticRegression(optimizer=optim.SGD(rate), intercept_lr=rate)
        else:
            self.model = linear_model.SoftmaxRegression(optimizer=optim.SGD(rate))
            for each in range(classes):
                _ = self.model.weights[each]  # known from the first row on, at 0

    def learn(self, x: dict[str, float], target: int) -> None:
        if self._classes == 2:
            said = self.model.predict_proba_one(x)[bool(target)]
            self.model.learn_one(x, bool(target))
        else:
            x = {**x, _INTERCEPT: 1.0}
            said = self.model.predict_proba_one(x)[target]
            self.model.learn_one(x, target)
        keep = 0.5 ** (1.0 / HALF_LIFE)
        self.loss = keep * self.loss - (1.0 - keep) * math.log(max(said, 1e-15))

    def weights(self, names: tuple[str, ...]) -> tuple[Floats, Floats]:
        """Weights float64[outputs, k] and intercepts float64[outputs]."""
        if self._classes == 2:
            rows, intercepts = [self.model.weights], [float(self.model.intercept)]
        else:
            rows = [self.model.weights[each] for each in range(self._classes)]
            intercepts = [float(row.get(_INTERCEPT, 0.0)) for row in rows]
        return np.array([[row.get(name, 0.0) for name in names] for row in rows]), np.array(intercepts)

    def set(self, names: tuple[str, ...], weights: Floats, intercepts: Floats, steps: int) -> None:
        from river.utils import VectorDict

        rows = [dict(zip(names, row, strict=True)) for row in weights.tolist()]
        if self._classes == 2:
            self.model._weights = VectorDict(rows[0])
            self.model.intercept = float(intercepts[0])
            self.model.optimizer.n_iterations = steps
            return
        for each, row in enumerate(rows):
            self.model.weights[each].update(row | {_INTERCEPT: float(intercepts[each])})
            self.model.optimizers[each].n_iterations = steps


class OnlineLearner:
    """Learns each outcome once, in the ledger's order; the same rows in any cuts give the same state.

    Features are scaled by their running mean and deviation. Of several rates, the one with the smallest loss
    of late is what an artefact is made of; each loss is taken before its row is learnt.
    """

    def __init__(self, features: Features, class_count: int) -> None:
        from river import preprocessing

        self.features, self.class_count = features, class_count
        self.sequence = -1
        self.rows = 0
        self._scaler: Any = preprocessing.StandardScaler()
        self._rates = [_Rate(rate, class_count) for rate in RATES]

    def learn(self, rows: TrainingRows) -> None:
        """Learn the rows whose sequence is above every one learnt before; others are passed over."""
        if rows.features != self.features or rows.class_count != self.class_count:
            raise ValueError("rows of other features or classes")
        begin = int(np.searchsorted(rows.sequences, self.sequence, side="right"))
        names = self.features.names
        for values, target in zip(rows.matrix[begin:].tolist(), rows.targets[begin:].tolist(), strict=True):
            x = dict(zip(names, values, strict=True))
            self._scaler.learn_one(x)
            scaled = self._scaler.transform_one(x)
            for each in self._rates:
                each.learn(scaled, target)
        if begin < len(rows):
            self.sequence = int(rows.sequences[-1])
            self.rows += len(rows) - begin

    def snapshot(self) -> bytes:
        """All of the state as canonical JSON."""
        names = self.features.names
        rates: list[JsonValue] = []
        for each in self._rates:
            weights, intercepts = each.weights(names)
            rates.append(
                {
                    "rate": each.rate,
                    "loss": each.loss,
                    "weights": weights.tolist(),
                    "intercepts": intercepts.tolist(),
                }
            )
        state: dict[str, JsonValue] = {
            "format": FORMAT,
            "features": list(names),
            "fingerprint": self.features.fingerprint,
            "classes": self.class_count,
            "sequence": self.sequence,
            "rows": self.rows,
            "means": [float(self._scaler.means.get(name, 0.0)) for name in names],
            "variances": [float(self._scaler.vars.get(name, 0.0)) for name in names],
            "rates": rates,
        }
        return json.dumps(state, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    @staticmethod
    def restore(data: bytes, features: Features, class_count: int) -> "OnlineLearner":
        """A learner that goes on bit-equal; Refused for a state of other features, classes or rates."""
        state = strict_json(data)
        learner = OnlineLearner(features, class_count)
        mine = (FORMAT, list(features.names), features.fingerprint, class_count, list(RATES))
        said = tuple(state.get(name) for name in ("format", "features", "fingerprint", "classes"))
        if (*said, [each["rate"] for each in state.get("rates", [])]) != mine:
            raise Refused("the online learner's state is of other features, classes or rates; begin anew")
        learner.sequence, learner.rows = int(state["sequence"]), int(state["rows"])
        if not learner.rows:
            return learner
        for name, mean, variance in zip(features.names, state["means"], state["variances"], strict=True):
            learner._scaler.counts[name] = learner.rows
            learner._scaler.means[name] = mean
            learner._scaler.vars[name] = variance
        for each, kept in zip(learner._rates, state["rates"], strict=True):
            each.loss = float(kept["loss"])
            each.set(features.names, np.array(kept["weights"]), np.array(kept["intercepts"]), learner.rows)
        return learner

    def best(self) -> int:
        """The place of the rate with the smallest loss of late; the smallest rate among equals."""
        return min(range(len(self._rates)), key=lambda place: self._rates[place].loss)

    def network(self) -> Network:
        """The best regression as a network that scores the same, in float64."""
        names = self.features.names
        means = np.array([self._scaler.means.get(name, 0.0) for name in names], np.float64)
        variances = np.array([self._scaler.vars.get(name, 0.0) for name in names], np.float64)
        weights, intercepts = self._rates[self.best()].weights(names)
        known = variances > 0  # without variance so far, a feature counts as 0
        network = Network(Linear(inputs=len(names), classes=self.class_count), "float64")
        layer = cast(torch.nn.Linear, network.layers[0])
        with torch.no_grad():
            network.scaling.mean.copy_(torch.from_numpy(means))
            network.scaling.scale.copy_(torch.from_numpy(np.where(known, variances, 1.0) ** 0.5))
            layer.weight.copy_(torch.from_numpy(np.where(known, weights, 0.0)))
            layer.bias.copy_(torch.from_numpy(intercepts))
        return network.eval()

    def outputs(self, matrix: Floats) -> Floats:
        """P(positive class) float64[n], or float64[n, classes]."""
        with torch.inference_mode():
            return np.asarray(self.network()(torch.from_numpy(matrix)).numpy(), np.float64)

    def artefact(self, samples: Floats, provenance: Provenance | None = None) -> Artefact:
        """The best regression, frozen; up to 64 of `samples` float64[m, k] become golden inputs."""
        made = Provenance({"rows": self.rows, "sequence": self.sequence}, {}, self.describe())
        architecture = Linear(inputs=len(self.features.names), classes=self.class_count)
        return build_artefact(
            architecture, self.network(), self.features, golden_rows(samples), provenance or made
        )

    def describe(self) -> dict[str, JsonValue]:
        """Trainer, rate, rows learnt."""
        return {"trainer": "millrace.online", "rate": RATES[self.best()], "rows_learnt": self.rows}
