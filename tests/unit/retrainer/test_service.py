"""The order of runs follows from ledger and alarms, whichever topic is read faster and whatever is killed."""

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from fastavro import parse_schema
from prometheus_client import CollectorRegistry

from schemas import platform_schema
from services.retrainer.core.triggers import Trigger
from services.retrainer.kept import Kept
from services.retrainer.metrics import RetrainerMetrics
from services.retrainer.process import Bench
from services.retrainer.propose import KafkaProposals, Proposal, command_of
from services.retrainer.runs import Step
from services.retrainer.service import Retraining
from services.retrainer.steps import Runner
from shared.codec.batch import Strings
from shared.codec.frame import frame_prefix
from shared.contracts.generated import labeled_schema
from shared.control.publisher import Publisher
from shared.control.records import Record, Records, plain
from shared.runtime.polled import Polled
from shared.runtime.tables import Table
from shared.settings import KafkaSettings
from tests.unit.retrainer.loops import (
    Fuse,
    Killed,
    MemoryJournal,
    MemoryLedger,
    alarm_record,
    declared,
    policy_of,
    rows_of,
    train_command,
)

PIPELINE = declared()
ROWS = 1_500
TABLE = Table.of("labeled", 1, labeled_schema(PIPELINE))
BATCH = rows_of(PIPELINE, ROWS)
ALARMS = Records("drift", 2, parse_schema(plain(platform_schema("drift"))))
COMMANDS = Records("commands", 3, parse_schema(plain(platform_schema("command"))))
RAISED = (130, 420, 700, 1_260)
"""Of alarms: the second is quiet behind the first, and the last is followed up behind the ledger's end."""
ORDER = [
    "first-59",
    "labels-99",
    "alarm-130",
    *(f"labels-{n}99" for n in (1, 2, 3)),
    "again-alarm-130",
    *(f"labels-{n}99" for n in (4, 5, 6)),
    "alarm-700",
    *(f"labels-{n}99" for n in (7, 8, 9)),
    "again-alarm-700",
    *(f"labels-{n}99" for n in (10, 11)),
    "alarm-1260",
    *(f"labels-{n}99" for n in (12, 13, 14)),
]


class Runs:
    """A runner that writes down when a run begins and ends, and learns nothing."""

    def __init__(self, journal: MemoryJournal) -> None:
        self.journal = journal

    def run(self, trigger: Trigger) -> str:
        if self.journal.past(trigger.id).ended is None:
            if self.journal.past(trigger.id).begun is None:
                said = {"trigger": trigger.to_json()}
                self.journal.write(Step(trigger.id, "trigger", "started", trigger.sequence, "", said))
            self.journal.write(Step(trigger.id, "done", "done", trigger.sequence, "", {}))
        return "done"

    def skip(self, trigger: Trigger, reason: str) -> None:
        self.journal.write(Step(trigger.id, "skipped", "done", trigger.sequence, "", {"reason": reason}))


class Scene:
    """A service whose records come when the test says so; what is not acknowledged comes again after a start."""

    def __init__(self, folder: Path, fuse: Fuse) -> None:
        self.journal = MemoryJournal(fuse)
        self.runs = Runs(self.journal)
        self.kept = Kept(str(folder))
        self.acknowledged = {"labeled": 0, "drift": 0}

    def service(self) -> Retraining:
        return Retraining(
            PIPELINE,
            policy_of(PIPELINE).model_copy(update={"follow_up": 300}),
            cast("Runner", self.runs),
            self.journal,
            MemoryLedger(PIPELINE, BATCH),
            self.kept,
            Bench(1 << 30, 0, 1, spare=False),
            RetrainerMetrics.on(CollectorRegistry()),
            "id",
            lambda sequence: [alarm(each) for each in RAISED if each <= sequence],
            30.0,
        )

    async def serve(self, chance: random.Random, *, alarms_first: bool) -> None:
        """Deliver everything that was not acknowledged, in pieces, either topic at any speed."""
        service = self.service()

        async def labeled() -> None:
            if alarms_first:
                await asyncio.sleep(0.01)
            while (at := self.acknowledged["labeled"]) < ROWS:
                size = chance.choice((1, 30, 150, 700))
                await service.labeled(TABLE, polled(range(at, min(at + size, ROWS))))
                self.acknowledged["labeled"] = min(at + size, ROWS)
                await asyncio.sleep(chance.choice((0.0, 0.002)))

        async def drift() -> None:
            while (at := self.acknowledged["drift"]) < len(RAISED):
                await asyncio.sleep(chance.choice((0.0, 0.01, 0.1)))
                await service.alarmed(ALARMS, polled_alarm(RAISED[at], at))
                self.acknowledged["drift"] = at + 1

        async with asyncio.TaskGroup() as group:
            group.create_task(labeled())
            group.create_task(drift())


def alarm(sequence: int) -> Record:
    return alarm_record(f"alarm-{sequence}", sequence, sequence - 20)


def polled_of(values: Strings, offsets: Sequence[int]) -> Polled:
    none, places = np.zeros(len(offsets), np.bool_), np.array(offsets, np.int64)
    return Polled("t", 0, values, none, values, none, places, places)


def polled(rows: range) -> Polled:
    return polled_of(TABLE.write(BATCH.take(np.array(rows))), [2 * each for each in rows])


def polled_alarm(sequence: int, offset: int) -> Polled:
    out: Any = ALARMS.out([(f"alarm-{sequence}", alarm(sequence))])
    return polled_of(out.values, [offset])


@pytest.mark.parametrize("seed", range(8))
def test_the_order_of_runs_does_not_depend_on_speed(tmp_path: Path, seed: int) -> None:
    scene = Scene(tmp_path, Fuse())
    asyncio.run(scene.serve(random.Random(seed), alarms_first=seed % 2 == 0))
    assert [each.id for each in scene.journal.triggers()] == ORDER
    again = {each.id: each for each in scene.journal.triggers()}["again-alarm-130"]
    assert (again.sequence, again.at, again.since) == (430, 430_000, 110)
    assert scene.journal.past("alarm-420").ended == "skipped"


@pytest.mark.parametrize("seed", range(8))
def test_nor_on_kills(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    scene = Scene(tmp_path, Fuse(chance.randint(1, 12)))
    kills = 0
    while True:
        try:
            asyncio.run(scene.serve(chance, alarms_first=False))
            break
        except BaseExceptionGroup as group:
            if group.split(Killed)[1] is not None:
                raise
            kills += 1
            scene.journal.fuse.left = chance.randint(1, 12)
    assert kills > 3
    assert [each.id for each in scene.journal.triggers()] == ORDER


class Slow(Runs):
    """Takes its time between looking and writing."""

    def skip(self, trigger: Trigger, reason: str) -> None:
        if self.journal.past(trigger.id).ended is None:
            time.sleep(0.05)
            super().skip(trigger, reason)


def test_an_alarm_that_two_handlers_see_is_skipped_once(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Fuse())
    scene.runs = Slow(scene.journal)
    said = {"trigger": Trigger("alarm-130", "drift", 130, 130_000).to_json()}
    scene.journal.write(Step("alarm-130", "trigger", "started", 130, "", said))

    async def both() -> None:
        service = scene.service()
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(service._alarm(alarm(420)))

    asyncio.run(both())
    assert scene.journal.told("alarm-420") == [("skipped", "done")]


def polled_commands(*commands: Record) -> Polled:
    """Commands between records of the same topic that are none."""
    other = frame_prefix(COMMANDS.schema_id + 1)
    good = [COMMANDS.encode(each) for each in commands]
    values = [b"", b"no frame", other + good[0][len(other) :], good[0][:-3], *good]
    return polled_of(Strings.of(values), range(len(values)))


def test_a_record_that_is_no_command_is_passed_over(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Fuse())
    asyncio.run(scene.service().commanded(COMMANDS, polled_commands(train_command("by-hand"))))
    assert [each.id for each in scene.journal.triggers()] == ["by-hand"]


def test_and_does_not_hide_what_was_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = Proposal("propose-by-hand", "small", "0" * 64, "to see", b"", {"kind": "torch"}, 77)
    topic = [polled_commands(train_command("by-hand"), command_of(sent))]
    monkeypatch.setattr("services.retrainer.propose.read_topic", lambda *_: topic)
    proposals = KafkaProposals(KafkaSettings(), COMMANDS, cast("Publisher", None))
    assert proposals.find(sent.id, 0) == sent
    assert proposals.find("propose-another", 0) is None
