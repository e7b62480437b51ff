"""One stream of applications whose outcomes are told well or badly: scripts that differ in their labels alone.

Told well, each outcome comes once, right, and in the order of the events. Told badly, labels are shuffled within
the horizon, come early, twice, contradicted, corrected, of nobody, of no class, and months late; what is right
stands first or is declared a correction, so that the matured outcome of every event is the same.
"""

import itertools
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl

from services.cli.changing import Change, applications
from services.cli.from_csv import Wish, files_from
from services.cli.script import Script, read_rows, spread, write_script
from shared.codec.batch import Batch, Column, Strings
from shared.contracts.pipeline import Pipeline
from shared.runtime.merge import EVENT, LABEL

EVENTS = 2_000
CLASSES = ("kept", "lost")
DAY_MS, MINUTE_MS = 86_400_000, 60_000
CLOSING_DAY = 100
"""The day of the last event, behind which everything has matured."""
AFTER_MS = 100 * MINUTE_MS
HORIZON_MS = 2 * AFTER_MS
EARLY_MS = 4 * MINUTE_MS
"""How long before its event a label may come: less than `max_future`, or the door calls its event's time wrong."""
UNKNOWN = 0.05
"""Share of events of which nobody says what came of them."""
REPEATED, CONTRADICTED, CORRECTED, EARLY = 0.10, 0.05, 0.03, 0.03
NOBODYS, STALE, STRANGE = 12, 9, 7


def declare(folder: Path, name: str) -> Path:
    """A declaration as `init --from` writes it, with corrections, and its rows as `rows.csv` beside it."""
    frame = applications(Change(events=EVENTS, at=EVENTS // 2))
    dice = random.Random(3)
    outcomes = [CLASSES[1 - paid] if dice.random() >= UNKNOWN else None for paid in frame["repaid"].to_list()]
    rows = frame.drop("repaid").with_columns(outcome=pl.Series(outcomes, dtype=pl.String))
    closing = rows.tail(1).with_columns(
        second=pl.lit(CLOSING_DAY * DAY_MS // 1_000, pl.Int64), outcome=pl.lit(None, pl.String)
    )
    own = folder / name
    own.mkdir(parents=True)
    file = own / "rows.csv"
    pl.concat([rows, closing]).write_csv(file)
    wish = Wish(name, file, "outcome", "second", "customer", f"{AFTER_MS // MINUTE_MS}m")
    texts = files_from(wish)
    more = "".join(
        f'{{"name": "{name}", "type": "boolean", "default": false, "doc": "{doc}"}},'
        for name, doc in (("corrects", "Mends."), ("noted", "A word that nobody reads."))
    )
    texts["label.avsc"] = texts["label.avsc"].replace('"fields": [', '"fields": [' + more, 1)
    texts["pipeline.toml"] = texts["pipeline.toml"].replace(
        "[label]\n", '[label]\ncorrection = "corrects"\n', 1
    )
    texts["pipeline.toml"] = texts["pipeline.toml"].replace(
        "[source.label]\n", '[source.label]\ncorrects = "false"\nnoted = "false"\n', 1
    )
    texts["pipeline.toml"] += "\n[policy.scores]\nwindow = 300\nevery = 100\n"
    pl.read_csv(file).with_columns(false=pl.lit(False)).write_csv(file)
    for each, text in texts.items():
        (own / each).write_text(text)
    return own


@dataclass(frozen=True, slots=True)
class Said:
    """One label: of the event in `row`, at order time `at`; `of` names another event than the row's."""

    row: int
    at: int
    outcome: str
    corrects: bool = False
    noted: bool = False
    of: str | None = None


@dataclass(slots=True)
class Telling:
    """Labels in no order, and what must become of them."""

    labels: list[Said] = field(default_factory=list)
    letters: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Dead letters due, by event id and reason."""
    corrected: set[str] = field(default_factory=set)
    early: set[str] = field(default_factory=set)
    repeats: int = 0
    """Labels that equal one before byte by byte."""

    def say(self, said: Said) -> None:
        """One more label."""
        self.labels.append(said)


class Stream:
    """The events of a declaration's rows; `script` puts labels between them."""

    def __init__(self, pipeline: Pipeline, folder: Path) -> None:
        frame = read_rows(folder / "rows.csv", pipeline)
        self._base: Script = write_script(frame, pipeline, AFTER_MS)
        assert self._base.labels is not None
        self._labels: Batch = self._base.labels
        self._times = self._base.events[pipeline.event.time].array.tolist()
        outcomes: list[str | None] = frame["outcome"].to_list()
        self.known = {row: outcome for row, outcome in enumerate(outcomes) if outcome is not None}
        self.start, self.count = int(self._times[0]), len(outcomes)

    def well(self) -> Telling:
        """Each outcome once, in the order of the events."""
        told = Telling()
        for row, outcome in self.known.items():
            told.say(Said(row, self._times[row] + AFTER_MS + 7, outcome))
        return told

    def flipped(self, row: int) -> Telling:
        """As `well`, but the first label of one event is wrong, and the right one is no correction."""
        told = self.well()
        at = next(n for n, each in enumerate(told.labels) if each.row == row)
        right = told.labels[at]
        told.labels[at] = replace(right, outcome=other(right.outcome))
        told.labels.append(replace(right, at=right.at + MINUTE_MS))
        told.letters[str(row), "label.conflict"] += 1
        return told

    def badly(self, seed: int = 11) -> Telling:
        """The same outcomes, by way of everything that can go wrong with labels."""
        dice = random.Random(seed)
        told = Telling()
        rows = sorted(self.known)
        dice.shuffle(rows)
        counts = [int(share * len(rows)) for share in (REPEATED, CONTRADICTED, CORRECTED, EARLY)]
        ends = np.cumsum([0, *counts]).tolist()
        repeated, contradicted, corrected, early = (
            set(rows[begin:end]) for begin, end in itertools.pairwise(ends)
        )
        for row in rows:
            time, outcome = self._times[row], self.known[row]
            first = time + self._moment(dice, MINUTE_MS, HORIZON_MS // 2 if row in corrected else HORIZON_MS)
            later = first + self._moment(dice, 1_000, HORIZON_MS // 3)
            if row in corrected:
                self._correct(told, row, first, later)
                continue
            if row in early:
                first = time - self._moment(dice, MINUTE_MS, EARLY_MS)
                told.early.add(str(row))
            told.say(Said(row, first, outcome))
            if row in repeated:
                self._repeat(told, row, later, identical=dice.random() < 0.5)
            if row in contradicted:
                self._contradict(told, row, later)
        self._nonsense(told, dice, rows)
        return told

    def script(self, told: Telling) -> Script:
        """The events with these labels between them; the events stand at the same order times in every script."""
        labels = sorted(told.labels, key=lambda each: each.at)
        rows = np.array([each.row for each in labels], np.int64)
        said = self._labels.take(rows).having(
            event_id=Strings.of([(each.of or str(each.row)).encode() for each in labels]),
            outcome=Strings.of([each.outcome.encode() for each in labels]),
            corrects=Column(np.array([each.corrects for each in labels])),
            noted=Column(np.array([each.noted for each in labels])),
        )
        base, count = self._base, self.count
        which = np.concatenate([np.arange(count), rows])
        kind = np.concatenate([np.full(count, EVENT, np.int8), np.full(rows.size, LABEL, np.int8)])
        row = np.concatenate([np.arange(count), count + np.arange(rows.size)])
        at = np.concatenate([np.array(self._times), np.array([each.at for each in labels], np.int64)])
        order = np.lexsort((kind, at))
        return Script(
            base.events,
            # Keys go by row for events and labels alike: labels stand behind as many rows as there are events.
            Batch.concat([self._labels.take(np.zeros(count, np.int64)), said]),
            base.keys.take(which),
            base.partitions[which],
            kind[order],
            row[order],
            spread(at[order]),
        )

    def _moment(self, dice: random.Random, least_ms: int, most_ms: int) -> int:
        """A delay that is no whole second: labels never stand at the time of an event."""
        return dice.randrange(least_ms, most_ms - 1_000) // 1_000 * 1_000 + dice.randrange(1, 900)

    def _repeat(self, told: Telling, row: int, at: int, identical: bool) -> None:
        """The same class again, in the same bytes or in others."""
        told.say(Said(row, at, self.known[row], noted=not identical))
        told.repeats += identical

    def _contradict(self, told: Telling, row: int, at: int) -> None:
        """Another class, delivered twice: one letter."""
        for each in (at, at + MINUTE_MS):
            told.say(Said(row, each, other(self.known[row])))
        told.letters[str(row), "label.conflict"] += 1
        told.repeats += 1

    def _correct(self, told: Telling, row: int, at: int, later: int) -> None:
        """A wrong class and its correction, then the wrong one delivered again: that is an old story."""
        wrong = other(self.known[row])
        told.say(Said(row, at, wrong))
        told.say(Said(row, later, self.known[row], True))
        told.say(Said(row, later + MINUTE_MS, wrong))
        told.corrected.add(str(row))
        told.repeats += 1

    def _nonsense(self, told: Telling, dice: random.Random, rows: list[int]) -> None:
        """Labels of nobody, of no class, and months late."""
        for number in range(NOBODYS):
            row, of = dice.choice(rows), f"nobody-{number}"
            told.say(Said(row, self._times[row] + MINUTE_MS // 2 + number, CLASSES[0], of=of))
            told.letters[of, "label.orphan"] += 1
        for row in dice.sample(rows, STRANGE):
            told.say(Said(row, self._times[row] + MINUTE_MS // 3, "perhaps"))
            told.letters[str(row), "label.class"] += 1
        for number, row in enumerate(dice.sample(rows, STALE)):
            late = self.start + (CLOSING_DAY - 1) * DAY_MS + 10 * number + 7
            told.say(Said(row, late, other(self.known[row])))
            told.letters[str(row), "label.stale"] += 1


def other(outcome: str) -> str:
    """The other class."""
    return CLASSES[1 - CLASSES.index(outcome)]
