"""Drift detectors on river's synthetic streams: what is found, how soon, and false alarms. One setting for all.

Run: `python -m tests.bench.bench_drift [SEEDS [STATIONARY_EVENTS]]`; prints the tables of docs/benchmarks.md.
"""

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from services.drift.core.calibration import SAFETY
from services.drift.core.monitor import FAMILY_SHARES, Monitor, judge
from services.drift.core.performance import SHARES, Performance
from services.drift.core.records import LabeledRows, ProfileRow
from services.drift.rows import profile_row
from services.feedback.core.answers import NAMES, answer_columns
from shared.contracts.policies import DriftPolicy
from shared.profiling import ANSWERS, Profiler
from tests.bench.drift_streams import CALM, TRAIN, Case, Served, cases, rows_of, stream

POLICY = DriftPolicy()
WITHIN = 500
BATCH = 1_000
STATIONARY = (
    "SEA 0 to 1, noise 10%",
    "Agrawal 5 to 6, perturbed 5%",
    "RBF other, 4 classes",
    "LED 3 swapped, noise 10%",
    "Friedman global",
)


def alone(name: str, classes: int) -> Performance:
    """One detector with the share of the budget that it has among all."""
    rows = SAFETY * POLICY.false_alarm_every / FAMILY_SHARES["performance"] / SHARES[name]
    return Performance(classes, POLICY.quiet, rows, (name,))


class Profiled:
    """What the features service and feedback would say of these vectors and answers."""

    def __init__(self, names: Sequence[str]) -> None:
        self._features, self._answers = (
            Profiler(0, columns, np.full(len(columns), np.nan), POLICY.profile_rows)
            for columns in (names, NAMES)
        )

    def step(self, rows: LabeledRows) -> list[ProfileRow]:
        """The profiles that these rows fill."""
        classes = 2 if rows.probabilities is None else rows.probabilities.shape[1]
        said = answer_columns(rows.score, rows.predicted_class, classes)
        return [profile_row(each) for each in self._features.step(rows.features, rows.order_time)] + [
            profile_row({**each, "of": ANSWERS, "model_version": int(rows.model_version[-1])})
            for each in self._answers.step(said, rows.order_time)
        ]


def alarms(rows: LabeledRows, classes: int) -> dict[str, list[tuple[int, int]]]:
    """(sequence, since) of all alarms: of the monitor by family and detector, and of each detector by itself."""
    names = [f"f{i}" for i in range(rows.features.shape[1])]
    monitor = Monitor(POLICY, names, classes)
    profiled = Profiled(names)
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for start in range(0, len(rows), BATCH):
        part = rows.take(slice(start, start + BATCH))
        raised = monitor.labeled(part)
        for profile in profiled.step(part):
            raised += monitor.profile(profile)
        for alarm in raised:
            entry = (alarm.sequence, alarm.since_sequence)
            for key in {"any", alarm.family, f"{alarm.family}: {alarm.detector}"}:
                found[key].append(entry)
    judged = judge(rows)
    for name in SHARES:
        found[name] = [
            (int(judged.sequence[w.row]), w.since_sequence) for w in alone(name, classes).step(judged)
        ]
    return found


KEYS = ("any", "performance", *SHARES, "prediction", "data")


def changes(seeds: int) -> None:
    """Delays on every case and seed, by detector; the cases that were not found in time."""
    delays: dict[tuple[str, str], list[int]] = defaultdict(list)
    early: Counter[str] = Counter()
    lines: list[list[object]] = []
    drawn = 0
    for case in cases():
        for seed in range(seeds):
            rows, classes = stream(case, seed)
            found = alarms(rows, classes)
            drawn += 1
            kind = "gradual" if case.gradual else "abrupt"
            for key in KEYS:
                after = [(at - CALM, since - CALM) for at, since in found[key] if at >= CALM]
                early[key] += len(found[key]) - len(after)
                delays[kind, key].append(after[0][0] if after else 10**6)
            errors = judge(rows).errors
            first = delays[kind, "performance"][-1]
            since = next((s - CALM for at, s in found["performance"] if at >= CALM), None)
            line = [case.name, kind, seed, f"{errors[:CALM].mean():.3f}", f"{errors[CALM:].mean():.3f}"]
            lines.append([*line, _shown(first), since, _shown(delays[kind, "any"][-1])])
    print(f"\n{drawn} streams, {seeds} seeds each.\n")
    table(["stream", "kind", "seed", "error before", "after", "performance", "since", "any"], lines)
    totals = []
    for key in KEYS:
        abrupt, gradual = (np.array(delays[kind, key]) for kind in ("abrupt", "gradual"))
        totals.append(
            [
                key,
                f"{int((abrupt <= WITHIN).sum())} of {len(abrupt)}",
                _shown(np.median(abrupt)),
                _shown(np.quantile(abrupt, 0.9)),
                f"{int((gradual < 10**6).sum())} of {len(gradual)}",
                _shown(np.median(gradual)),
                early[key],
            ]
        )
    print()
    heads = [f"abrupt: within {WITHIN}", "median", "90 %", "gradual: found", "median", "alarms before"]
    table(["detector", *heads], totals)


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table."""
    for row in (heads, ["---"] * len(heads), *rows):
        print("| " + " | ".join(str(each) for each in row) + " |")


def _shown(delay: float) -> str:
    return "-" if delay >= 10**5 else f"{delay:.0f}"


def stationary(events: int, seeds: int) -> None:
    """False alarms where nothing changes."""
    counts: Counter[str] = Counter()
    rows_in_all, spent = 0, 0.0
    chosen = [case for case in cases() if case.name in STATIONARY]
    print("\n| stationary stream | seed | events | any | performance | prediction | data |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for case in chosen:
        for seed in range(seeds):
            rows, classes = _calm(case, seed, events)
            begin = time.process_time()
            found = alarms(rows, classes)
            spent += time.process_time() - begin
            rows_in_all += len(rows)
            own = {key: len(found[key]) for key in found}
            counts.update(own)
            shown = " | ".join(str(own.get(k, 0)) for k in ("any", "performance", "prediction", "data"))
            print(f"| {case.family} | {seed} | {len(rows)} | {shown} |", flush=True)
    print(f"\n{rows_in_all} stationary events; false alarms in 100,000 of them:\n")
    print("| detector | alarms | in 100,000 |\n| --- | ---: | ---: |")
    for key in sorted({*KEYS, *counts}, key=lambda k: (KEYS.index(k) if k in KEYS else 99, k)):
        print(f"| {key} | {counts[key]} | {counts[key] * 1e5 / rows_in_all:.2f} |")
    print(f"\n{rows_in_all / spent:,.0f} rows/s of CPU, monitor and each detector by itself.")


def _calm(case: Case, seed: int, events: int) -> tuple[LabeledRows, int]:
    features, labels = rows_of(case.before(seed), TRAIN + events)
    model = Served(features[:TRAIN], labels[:TRAIN])
    return model.answer(features[TRAIN:], labels[TRAIN:], 0), len(model.classes)


def main() -> None:
    """Print the tables."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    events = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    changes(seeds)
    if events:
        stationary(events, seeds)


if __name__ == "__main__":
    main()
