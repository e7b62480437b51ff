"""The loop without a broker: prequential accuracy on Elec2, outcomes 48 events late, from a cold start.

Run: `python -m tests.bench.bench_loop_offline --features raw|windows`. It reads ../shared/data/elec2.csv.gz.
Every event is answered by the champion of its time; a retraining takes effect at once, and a candidate is
promoted when its log loss on the validation tail is below the champion's on the same rows, with confidence.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from services.retrainer.core.kinds.choose import candidates
from services.retrainer.core.kinds.online import OnlineLearner
from services.retrainer.core.kinds.rows import Candidate, Floats, Ints, TrainingRows
from services.retrainer.core.metrics import losses
from shared.errors import Refused
from shared.models.building import Features, untrained
from shared.models.loading import load_model
from shared.models.manifest import Artefact, Linear, Mlp

FILE = Path(__file__).parents[3] / "shared/data/elec2.csv.gz"
RAW = ("day", "period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer")
DAY = 48


@dataclass(frozen=True, slots=True)
class Settings:
    """One way to run the loop."""

    features: str = "raw"
    delay: int = 48
    every_labels: int = 500
    min_rows: int = 200
    window_rows: int = 10_000
    validation: float = 0.2
    kinds: Sequence[str] = ("torch", "gbt", "online")
    windows: Sequence[str] = ("last", "since_drift", "weighted")
    hidden: Sequence[int] = (32, 16)
    confidence: float = 0.9
    seed: int = 0
    events: int = 45_312


def read(features: str) -> tuple[tuple[str, ...], Floats, Ints]:
    """Names, vectors and classes (1 is UP): the columns, with `windows` also their means over a day."""
    frame = pl.read_csv(FILE)
    matrix = frame.select(pl.col(RAW).cast(pl.Float64)).to_numpy(order="c")
    names, columns = list(RAW), [matrix]
    if features == "windows":
        for name in RAW[2:]:
            values = frame[name].cast(pl.Float64)
            columns.append(values.rolling_mean(DAY, min_samples=1).to_numpy()[:, None])
            names.append(f"{name}_mean_1d")
    truth = (frame["class"] == "UP").to_numpy().astype(np.int64)
    return tuple(names), np.ascontiguousarray(np.hstack(columns)), truth


@dataclass(slots=True)
class Champion:
    """What answers, and what it is."""

    artefact: Artefact
    features: Features

    def score(self, matrix: Floats) -> Floats:
        """P(UP) float64[n]."""
        model = load_model(self.artefact, self.features.fingerprint, self.features.names)
        with torch.inference_mode():
            return np.asarray(model.network(torch.from_numpy(matrix)).numpy())


class Loop:
    """Events in order, outcomes `delay` later, retrainings between."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        names, self.matrix, self.truth = read(settings.features)
        self.matrix, self.truth = self.matrix[: settings.events], self.truth[: settings.events]
        self.features = Features(names, "00" * 32)
        self.scores = np.zeros(len(self.truth))
        self.log: list[dict[str, object]] = []
        self.seconds: list[float] = []
        self.online = OnlineLearner(self.features, 2)

    def run(self, *, learn: bool = True, stop_after: int | None = None) -> Floats:
        """The score that each event was answered with; `stop_after` so many promotions."""
        champion = Champion(untrained(self.features), self.features)
        due, promoted, begin = self.settings.min_rows, 0, 0
        while begin < len(self.truth):
            end = min(len(self.truth), due + self.settings.delay) if learn else len(self.truth)
            self.scores[begin:end] = champion.score(self.matrix[begin:end])
            if end < len(self.truth):
                best = self._train(due, champion)
                if best is not None:
                    champion, promoted = Champion(best.artefact, self.features), promoted + 1
                learn = stop_after is None or promoted < stop_after
                due += min(self.settings.every_labels, due)
            begin = end
        return self.scores

    def _train(self, known: int, champion: Champion) -> Candidate | None:
        settings = self.settings
        clock = time.perf_counter()
        rows = TrainingRows(
            self.features,
            self.matrix[:known],
            self.truth[:known],
            2,
            None,
            np.arange(known, dtype=np.int64) * 1_800_000,
            np.arange(known, dtype=np.int64),
            {},
        )
        try:
            found = candidates(
                rows,
                kinds=settings.kinds,
                windows=settings.windows,
                window_rows=settings.window_rows,
                validation=settings.validation,
                drift_since=None,
                architecture=Mlp(inputs=len(self.features.names), hidden=tuple(settings.hidden))
                if settings.hidden
                else Linear(inputs=len(self.features.names)),
                seed=settings.seed,
                online=self.online,
            )
        except Refused:
            return None
        self.seconds.append(time.perf_counter() - clock)
        best = found[0]
        tail = slice(known - len(best.outputs), known)
        gain = losses(self.truth[tail], champion.score(self.matrix[tail])) - losses(
            self.truth[tail], best.outputs
        )
        bound = _lower_bound(gain, settings.confidence)
        self.log.append(
            {
                "known": known,
                "promoted": bound > 0,
                "gain": round(float(gain.mean()), 4),
                "tried": {f"{c.kind}/{c.window}": round(c.figures["log_loss"], 4) for c in found},
            }
        )
        return best if bound > 0 else None


def _lower_bound(gain: Floats, confidence: float) -> float:
    """The quantile of the mean gain under resampling."""
    random = np.random.default_rng(0)
    picks = random.integers(0, len(gain), (500, len(gain)))
    return float(np.quantile(gain[picks].mean(axis=1), 1 - confidence))


def main() -> None:
    """Print accuracies as JSON."""
    parser = argparse.ArgumentParser()
    for name, default in asdict(Settings()).items():
        if isinstance(default, tuple):
            parser.add_argument(f"--{name.replace('_', '-')}", default=",".join(map(str, default)))
        else:
            parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--log", action="store_true")
    given = vars(parser.parse_args())
    with_log = given.pop("log")
    for name in ("kinds", "windows"):
        given[name] = tuple(filter(None, given[name].split(",")))
    given["hidden"] = tuple(int(each) for each in given["hidden"].split(",") if each)
    loop = Loop(Settings(**given))
    right = (loop.run() >= 0.5) == (loop.truth == 1)
    if with_log:
        for each in loop.log:
            print(json.dumps(each))
    tenths = [round(float(part.mean()), 3) for part in np.array_split(right, 10)]
    first = Loop(Settings(**given))
    result = {
        "accuracy": round(float(right.mean()), 4),
        "tenths": tenths,
        "loop_off": round(float(((first.run(learn=False) >= 0.5) == (first.truth == 1)).mean()), 4),
        "first_model_only": round(float(((first.run(stop_after=1) >= 0.5) == (first.truth == 1)).mean()), 4),
        "trainings": len(loop.log),
        "promotions": sum(bool(each["promoted"]) for each in loop.log),
        "seconds_a_training": round(float(np.mean(loop.seconds)), 2),
        "longest_training": round(float(np.max(loop.seconds)), 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
