"""Poisoned labels: what a model has learnt from the lies of one source goes no further than the gate.

Three sources report what became of loan applications, each on a third of them. From row HONEST on one of them
turns three in ten of its outcomes round. A model that learns from all of them grows unsure everywhere, which looks
better on the lies and is worse on the truth.
"""

import json
import random
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from services.cli.changing import Change, applications
from services.cli.chronicle import read_chronicle
from services.cli.from_csv import Wish, files_from
from services.cli.journey import Journey
from services.cli.script import labels_after_ms, read_rows, write_script
from services.stack.endpoints import Endpoints
from shared.control.records import Records
from shared.kafka.reader import read_topic
from shared.topics import COMMANDS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

HONEST, ROWS, EVERY = 800, 1_700, 400
SOURCES = ("branch", "web", "liar")
FLIPPED = 0.3


def declare(folder: Path, *, sources: bool) -> Path:
    """A declaration as `init --from` writes it, and its rows; with `sources` labels say who reported them."""
    name = f"poisoned-{'told' if sources else 'untold'}-{uuid.uuid4().hex[:8]}"
    own = folder / name
    own.mkdir()
    file, dice = own / "rows.csv", random.Random(5)
    frame = applications(Change(events=ROWS, at=ROWS - 1, noise=0.0))
    tellers = [dice.choice(SOURCES) for _ in range(ROWS)]
    lies = [
        row >= HONEST and teller == "liar" and dice.random() < FLIPPED for row, teller in enumerate(tellers)
    ]
    outcomes = [
        "paid" if paid != lie else "lost" for paid, lie in zip(frame["repaid"].to_list(), lies, strict=True)
    ]
    rows = frame.drop("repaid").with_columns(outcome=pl.Series(outcomes))
    rows.write_csv(file)
    texts = files_from(Wish(name, file, "outcome", "second", "customer", "1m"))
    rows.with_columns(teller=pl.Series(tellers)).write_csv(file)
    teller = '"fields": [{"name": "teller", "type": "string", "doc": "Who reports."},'
    texts["label.avsc"] = texts["label.avsc"].replace('"fields": [', teller, 1)
    toml = texts["pipeline.toml"].replace("[source.label]\n", '[source.label]\nteller = "teller"\n', 1)
    if sources:
        toml = toml.replace("[label]\n", '[label]\nsource = "teller"\n', 1)
    retrain = f'[policy.retrain]\nevery_labels = {EVERY}\nkinds = ["torch"]\nwindows = ["last"]\n'
    texts["pipeline.toml"] = toml.replace("[policy.retrain]\n", retrain, 1)
    for each, text in texts.items():
        (own / each).write_text(text)
    return own


@dataclass(frozen=True, slots=True)
class Left:
    """What became of a run's proposals: by digest the last outcome that they learnt from, and their decisions."""

    learnt_until: dict[str, int]
    audit: list[Any]

    @property
    def poisoned(self) -> list[str]:
        """The proposals that learnt from lies, or were judged by them."""
        return [digest for digest, sequence in self.learnt_until.items() if sequence >= HONEST]

    def states(self, digest: str) -> list[str]:
        """The states that a proposal went through."""
        return [each["state"] for each in self.audit if each["model_digest"] == digest and each["state"]]


def run(folder: Path, *, sources: bool) -> Left:
    """Send the stream in lockstep through services of its own."""
    journey = Journey(declare(folder, sources=sources), services="loop")
    pipeline = journey.pipeline
    script = write_script(
        read_rows(journey.folder / "rows.csv", pipeline), pipeline, labels_after_ms(pipeline)
    )
    with journey:
        journey.replay_in_steps(script, EVERY)
    commands = Records.of(COMMANDS, pipeline.name, journey.schema_ids)
    found = [
        each
        for polled in read_topic(journey.platform.kafka, commands.topic)
        for each in commands.read(polled)
    ]
    return Left(
        {c["model_digest"]: json.loads(c["parameters"])["sequence"] for c in found if c["kind"] == "propose"},
        list(read_chronicle(journey.platform, pipeline, journey.schema_ids).audit),
    )


@pytest.fixture(scope="module")
def told(stack: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Left:
    assert stack.bootstrap_servers
    return run(tmp_path_factory.mktemp("schemas"), sources=True)


def test_what_was_learnt_from_lies_is_not_promoted(told: Left) -> None:
    assert len(told.poisoned) >= 2
    assert {told.states(digest)[-1] for digest in told.poisoned} == {"rejected"}
    assert not any("shadow" in told.states(digest) for digest in told.poisoned)


def test_the_audit_says_that_it_hangs_on_one_source(told: Left) -> None:
    refused = [each for each in told.audit if (each["state"], each["reason"]) == ("rejected", "gate.source")]
    assert {each["model_digest"] for each in refused} & set(told.poisoned)
    for each in refused:
        figures = json.loads(each["detail"])["figures"]
        assert figures["low"] > 0.0, "it looks better on all rows"
        assert figures["without_source"]["liar"]["low"] <= 0.0, "and is not without the liar's"
        assert len(each["evidence"]) == 64


def test_an_honest_model_was_promoted_before(told: Left) -> None:
    honest = [digest for digest in told.learnt_until if digest not in told.poisoned]
    assert any("champion" in told.states(digest) for digest in honest)


def test_without_sources_the_lies_would_win(stack: Endpoints, tmp_path: Path) -> None:
    """The same stream, told without who said what: the gate cannot know, and what it lets pass is promoted."""
    assert stack.bootstrap_servers
    untold = run(tmp_path, sources=False)
    assert any("champion" in untold.states(digest) for digest in untold.poisoned)
