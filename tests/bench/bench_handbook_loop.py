"""The Fraud Detection Handbook's protocol through the loop, beside scikit-learn on the very same ledger rows.

Run: `python -m tests.bench.bench_handbook_loop` with a platform that runs. It reads the payments of
../shared/data. Their file ends in July, so the protocol stands two weeks earlier than in the Handbook: the model
learns from the payments of 07-11 to 07-17, whose outcomes are known a week later, on 07-25 at midnight, and
answers those of 07-25 to 07-31.

Replayed are the payments since `--history` days before the training week (the longest window reaches 37 days
back) with labels 7 days late, up to the last label before the test week. Then a `train` command; the controller
judges, and inference answers the test week with the version that it made champion. At last come the labels of
the test week, so that the ledger holds what was answered beside what was true.

From the pipeline `fraud` differ: trainings on command alone, on as many outcomes as the training week has; no
outcomes in shadow and as a canary, since the test week is the only one; a horizon of 8 days.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from services.cli.governing import Governance, Request
from services.cli.journey import Journey, read_rows
from services.cli.script import Script, cut, write_script
from services.cli.script import read_rows as read_file
from services.cli.variants import write_variant
from services.retrainer.core.ledger import LearningRows, learnable, wanted_rows
from services.retrainer.core.segments import ledger_rows, unseal
from services.retrainer.kept import kept_of
from shared.contracts.generated import labeled_schema
from shared.contracts.pipeline import find_pipeline
from shared.errors import Refused
from shared.runtime.entry import prepare
from shared.runtime.tables import Table
from shared.settings import home
from shared.topics import LABELED

FILE = Path(__file__).parents[3] / "shared/data/fraud_raw_2018-04_07.csv.gz"
DAY_MS = 86_400_000
EPOCH = 1_522_540_800_000
"""2018-04-01 in milliseconds."""
TRAIN, TEST = (101, 108), (115, 122)
"""Days since then: 07-11 to 07-17 and 07-25 to 07-31, the second number excluded."""
DELAY_DAYS = 7
FLOOR = {"roc_auc": 0.860, "average_precision": 0.590}
TRAIN_S = 1_800.0

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def declare(rows: int) -> Path:
    """The pipeline's folder; `rows` outcomes are learnt from, the newest of them as validation rows."""
    window = next(w for w in range(rows // 2, rows + 1) if wanted_rows(w, 0.2) >= rows)
    folder = write_variant(find_pipeline("fraud"), home() / "declared", f"handbook-{int(time.time())}", 1)
    path = folder / "pipeline.toml"
    text = path.read_text().replace('horizon = "7d"', 'horizon = "8d"', 1)
    text = re.sub(r"(?ms)^\[policy\.retrain\].*?(?=^\[)", f"{RETRAIN}window_rows = {window}\n\n", text)
    text = re.sub(r"(?m)^(shadow_labels|canary_labels) = .*$", r"\1 = 0", text)
    path.write_text(text.replace("[source]\n", '[source]\nlabels_after = "7d"\n', 1))
    return folder


RETRAIN = '[policy.retrain]\non = ["command"]\nmin_rows = 5000\n'


@dataclass(frozen=True, slots=True)
class Week:
    """Answers of the loop for the test week: all columns of one length."""

    ids: Ints
    cards: Ints
    days: Ints
    matrix: Floats
    fraud: Mask
    score: Floats
    version: Ints


def payments(file: Path, journey: Journey, history: int) -> pl.DataFrame:
    """Those from `history` days before the training week on."""
    begin = (TRAIN[0] - history) * DAY_MS // 1_000
    return read_file(file, journey.pipeline).filter(pl.col("TX_TIME_SECONDS") >= begin)


def run(file: Path, history: int, step: int) -> dict[str, Any]:
    """All of it; gives what is printed."""
    days = pl.read_csv(file, columns=["TX_TIME_SECONDS"])["TX_TIME_SECONDS"].to_numpy() // 86_400
    journey = Journey(declare(int(((days >= TRAIN[0]) & (days < TRAIN[1])).sum())), services="loop")
    frame = payments(file, journey, history)
    script = write_script(frame, journey.pipeline, DELAY_DAYS * DAY_MS)
    at = int(np.searchsorted(script.order, EPOCH + TEST[0] * DAY_MS))
    seconds: dict[str, float] = {}
    with journey:
        told = _timed(seconds, "to the test week", lambda: _send(journey, cut(script, 0, at), step))
        trained = _timed(seconds, "training", lambda: train(journey))
        _timed(seconds, "settling", journey.settle)
        _timed(seconds, "test week and labels", lambda: _send(journey, cut(script, at, len(script)), step))
    week = test_week(journey)
    taught = rows_of(journey, trained["dataset"])
    return {
        "pipeline": journey.pipeline.name,
        "payments": frame.height,
        "history_days": history,
        "records_before": told,
        "taught": {"rows": len(taught), "frauds": int(taught.classes.sum()), **_span(taught)},
        "trained": trained,
        "answered_by": {str(v): int((week.version == v).sum()) for v in np.unique(week.version)},
        "labels_as_in_file": bool(np.array_equal(week.fraud, _truth(frame, week.ids))),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "models": compare(taught, week, known_cards(frame, week)),
    }


def _send(journey: Journey, script: Script, step: int) -> int:
    journey.replay_in_steps(script, step, watch=_watch)
    return len(script)


def _watch(sent: int, total: int) -> None:
    print(f"\r{sent} of {total} records", end="" if sent < total else "\n", file=sys.stderr, flush=True)


def _timed(seconds: dict[str, float], name: str, work: Any) -> Any:
    begin = time.monotonic()
    found = work()
    seconds[name] = time.monotonic() - begin
    return found


def train(journey: Journey) -> dict[str, Any]:
    """Ask for a training and wait for the controller's word; Refused unless the version passed the gate."""
    start = prepare(journey.pipeline, journey.platform)
    start.registry.close()
    governance, request = Governance(start), Request("train", actor="bench", reason="the test week begins")
    steps = governance.train(request, TRAIN_S)
    if steps[-1]["step"] != "done":
        raise Refused(f"the training ended with {steps[-1]['step']}: {steps[-1]['detail']}")
    verdict = governance.verdict(f"propose-{request.id}", 120.0)
    if verdict is None or verdict.reason != "gate.passed":
        raise Refused(f"the controller said {verdict}")
    done = json.loads(steps[-1]["detail"])
    fitted = next(json.loads(s["detail"]) for s in steps if s["step"] == "train" and s["state"] == "done")
    best = fitted["candidates"][0]
    return {
        "version": verdict.version,
        "kind": done["kind"],
        "window": done["window"],
        "dataset": done["dataset"],
        "digest": done["digest"],
        "cut_off": steps[-1]["sequence"],
        "fit_on": best["rows"],
        "judged_on": best["validation_rows"],
        "candidates": {f"{c['kind']}/{c['window']}": c["metrics"] for c in fitted["candidates"]},
    }


def rows_of(journey: Journey, dataset: str) -> LearningRows:
    """The very rows of the dataset that the model was made from, validation rows included."""
    kept = kept_of(journey.platform.artefacts_url, journey.pipeline.name)
    manifest = kept.manifest(dataset)
    tables = [unseal(kept.get("segments", each.sha256)) for each in manifest.segments]
    return learnable(ledger_rows(tables, manifest.feature_names)).last(manifest.window_rows)


def test_week(journey: Journey) -> Week:
    """What the ledger holds of the test week, by payment."""
    names = [f"features.{name}" for name in journey.pipeline.feature_names]
    topic = LABELED.of(journey.pipeline.name)
    table = Table.of(topic, journey.schema_ids[topic], labeled_schema(journey.pipeline))
    columns = ["event_id", "key", "event_time", "label_class", "score", "model_version", "role", *names]
    rows = read_rows(journey.platform, table, columns)
    days = (rows["event_time"].array - EPOCH) // DAY_MS
    served = np.array([each != b"shadow" for each in rows["role"].strings.to_list()], np.bool_)
    rows = rows.take(np.flatnonzero((days >= TEST[0]) & (days < TEST[1]) & served))
    ids, cards = (_numbers(rows[name].strings.to_list()) for name in ("event_id", "key"))
    if len(np.unique(ids)) != rows.rows:
        raise Refused("the ledger holds a payment of the test week twice")
    return Week(
        ids,
        cards,
        (rows["event_time"].array.astype(np.int64) - EPOCH) // DAY_MS,
        np.column_stack([rows[name].array.astype(np.float64) for name in names]),
        rows["label_class"].array == 1,
        rows["score"].array.astype(np.float64),
        rows["model_version"].array.astype(np.int64),
    )


def _numbers(texts: list[bytes]) -> Ints:
    return np.array([int(each) for each in texts], np.int64)


def _truth(frame: pl.DataFrame, ids: Ints) -> Mask:
    """What the file says of payments that are all in it."""
    there, fraud = (frame[name].cast(pl.Int64).to_numpy() for name in ("TRANSACTION_ID", "TX_FRAUD"))
    order = np.argsort(there)
    return np.asarray(fraud[order][np.searchsorted(there[order], ids)] == 1, np.bool_)


def _span(rows: LearningRows) -> dict[str, float]:
    return {
        "first_day": round(float((rows.event_times.min() - EPOCH) / DAY_MS), 3),
        "last_day": round(float((rows.event_times.max() - EPOCH) / DAY_MS), 3),
    }


def compare(taught: LearningRows, week: Week, known: Mask) -> list[dict[str, Any]]:
    """The loop's answers and the peers', over all payments and over those of cards that are not `known`."""
    table = []
    for name, score in (("the loop", week.score), *_peers(taught, week.matrix)):
        row: dict[str, Any] = {"model": name}
        for part, inside in (("all", np.ones(len(score), np.bool_)), ("not_known", ~known)):
            truth, said = week.fraud[inside], score[inside]
            figures = {
                "roc_auc": roc_auc_score(truth, said),
                "average_precision": average_precision_score(truth, said),
            }
            row[part] = {"rows": len(said)} | {each: round(float(v), 4) for each, v in figures.items()}
        table.append(row)
    return table


def known_cards(frame: pl.DataFrame, week: Week) -> Mask:
    """Payments of cards whose fraud was known before their day: the Handbook leaves these out of its figures."""
    days = frame["TX_TIME_SECONDS"].to_numpy() // 86_400
    frauds = (frame["TX_FRAUD"].cast(pl.Int64).to_numpy() == 1) & (days >= TRAIN[0])
    cards = frame["CUSTOMER_ID"].cast(pl.Int64).to_numpy()
    known = np.zeros(len(week.ids), np.bool_)
    for day in range(*TEST):
        told = np.unique(cards[frauds & (days < day - DELAY_DAYS)])
        known |= (week.days == day) & np.isin(week.cards, told)
    return known


def _peers(taught: LearningRows, matrix: Floats) -> Iterator[tuple[str, Floats]]:
    models = {
        "scikit-learn logistic regression": make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=1_000)
        ),
        "scikit-learn random forest": RandomForestClassifier(100, random_state=0, n_jobs=2),
    }
    for name, model in models.items():
        model.fit(taught.matrix, taught.classes)
        yield name, model.predict_proba(matrix)[:, 1]


def lines(told: dict[str, Any]) -> list[str]:
    """The table for people: figures, and in brackets the loop's as a share of each peer's."""
    loop = told["models"][0]
    head = f"{'':<34}{'AUC':>9}{'':>8}{'AP':>9}{'':>8}{'AUC*':>9}{'':>8}{'AP*':>9}"
    found = [head]
    for row in told["models"]:
        cells = ""
        for part in ("all", "not_known"):
            for metric in FLOOR:
                ratio = loop[part][metric] / row[part][metric]
                cells += f"{row[part][metric]:>9.4f} ({ratio:.2f}x)"
        found.append(f"{row['model']:<34}{cells}")
    return [*found, "* cards whose fraud was not known yet"]


def holds(told: dict[str, Any]) -> bool:
    """As promised: the floors, with every payment of the week answered by the version that was trained."""
    answered = set(told["answered_by"]) == {str(told["trained"]["version"])}
    best = told["models"][0]["all"]
    return answered and told["labels_as_in_file"] and all(best[name] >= low for name, low in FLOOR.items())


def main() -> None:
    """Print the result as JSON on standard output and the table beside it; 1 where the floors are missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", type=Path, default=FILE)
    parser.add_argument("--history", type=int, default=37, help="days before the training week")
    parser.add_argument("--step", type=int, default=20_000, help="events a step")
    given = parser.parse_args()
    told = run(given.file, given.history, given.step)
    print(json.dumps(told))
    print("\n".join(lines(told)), file=sys.stderr)
    sys.exit(0 if holds(told) else 1)


if __name__ == "__main__":
    main()
