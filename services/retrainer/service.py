"""The service: three topics whose records raise triggers, and one run at a time.

A record is acknowledged when the run that it set off has ended. Runs are taken up in the order of the ledger: a
row's run begins when the drift service is done with that row and every alarm up to it has had its run, an alarm's
run when the ledger has been folded up to the alarm; an alarm's second run comes behind its first, before those of
later rows and alarms. So the order of proposals, too, does not depend on which topic
is read faster.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from services.retrainer.core.triggers import END, Trigger, Watch, drift_trigger, follow_up, watch
from services.retrainer.kept import Kept
from services.retrainer.ledger import Ledger, order_time_of, outcomes, outcomes_of
from services.retrainer.metrics import RetrainerMetrics
from services.retrainer.process import Bench, Stopped
from services.retrainer.reading import readable
from services.retrainer.runs import Journal
from services.retrainer.steps import Runner
from shared.contracts.pipeline import Pipeline
from shared.contracts.policies import RetrainPolicy
from shared.control.records import Record, Records
from shared.errors import Retry
from shared.runtime.context import backoff
from shared.runtime.polled import Polled
from shared.runtime.tables import Table

WATCH_KEY = "0" * 64
"""Under which step key the fold over the ledger is kept: it is no step's."""
GAP_ROWS = 50_000
TURN_S = 0.05


@dataclass(slots=True)
class Position:
    """How far the ledger was folded, with the offset behind its last row; kept, so that a start goes on there."""

    watch: Watch
    following: int

    @staticmethod
    def load(kept: Kept, topic_id: str) -> "Position":
        """What was kept, if it is of this very topic."""
        said: dict[str, Any] | None = kept.step(WATCH_KEY)
        if said is None or said["topic_id"] != topic_id:
            return Position(Watch(), 0)
        return Position(Watch.from_json(said["watch"]), said["following"])

    def save(self, kept: Kept, topic_id: str) -> None:
        """Keep it."""
        kept.put_step(
            WATCH_KEY, {"topic_id": topic_id, "watch": self.watch.to_json(), "following": self.following}
        )


class Retraining:
    """Handlers for labeled.v1, drift.v1 and commands.v1."""

    def __init__(
        self,
        pipeline: Pipeline,
        policy: RetrainPolicy,
        runner: Runner,
        journal: Journal,
        ledger: Ledger,
        kept: Kept,
        bench: Bench,
        metrics: RetrainerMetrics,
        topic_id: str,
        raised: Callable[[int], Sequence[Record]],
        wait_s: float,
    ) -> None:
        self._pipeline, self._policy = pipeline, policy
        self._runner, self._journal, self._ledger = runner, journal, ledger
        self._kept, self._bench, self._metrics, self._topic_id = kept, bench, metrics, topic_id
        self._raised, self._wait_s = raised, wait_s
        self._turn = asyncio.Lock()
        self._offsets: dict[int, int] = {}
        self.position = Position.load(kept, topic_id)

    def offset_of(self, sequence: int) -> int:
        """Where a row that raised a trigger stands on labeled.v1; -1 where that is not known."""
        return self._offsets.get(sequence, -1)

    async def labeled(self, table: Table, polled: Polled) -> None:
        """Fold the ledger on, and bring every run that it raises to its end."""
        rows = await asyncio.to_thread(outcomes_of, table, polled)
        await self._fill(int(rows.sequences[0]))
        state, raised = watch(self._policy, self.position.watch, rows)
        if state is self.position.watch:
            return
        places = dict(zip(rows.sequences.tolist(), polled.offsets.tolist(), strict=True))
        for trigger in raised:
            self._offsets = {trigger.sequence: places[trigger.sequence]}
            await self._in_order(trigger)
        self.position = Position(state, int(polled.offsets[-1]) + 1)
        self._metrics.sequence.set(state.sequence)
        self._metrics.outcomes.set(state.outcomes)
        await self._follow_up(state.sequence)
        # Before the rows are acknowledged: a start behind them would wait for rows that do not come again.
        await asyncio.to_thread(self.position.save, self._kept, self._topic_id)

    async def alarmed(self, alarms: Records, polled: Polled) -> None:
        """An alarm that triggers, once the ledger has been folded up to it."""
        for alarm in alarms.read(polled):
            if alarm["triggers"]:
                await self._folded(alarm["sequence"])
                await self._alarm(alarm)
                await self._follow_up(self.position.watch.sequence)

    async def _folded(self, sequence: int) -> None:
        """Wait until the fold has come to `sequence`; not for ever, its rows may have been acknowledged before."""
        deadline = time.monotonic() + self._wait_s
        while self.position.watch.sequence < sequence and (
            self._turn.locked() or time.monotonic() < deadline
        ):
            await asyncio.sleep(TURN_S)

    async def _in_order(self, trigger: Trigger) -> None:
        """The run of a row of the ledger, behind those of the alarms up to it."""
        alarms = await asyncio.to_thread(self._raised, trigger.sequence)
        await asyncio.to_thread(self._journal.refresh)
        for alarm in alarms:
            if self._journal.past(alarm["id"]).ended is None:
                await self._alarm(alarm)
        await self._follow_up(trigger.sequence)
        await self._run(trigger)

    async def _alarm(self, alarm: Record) -> None:
        """The alarm's run, unless it is undeclared or comes close behind another."""
        trigger = trigger_of_alarm(alarm)
        await asyncio.to_thread(self._journal.refresh)
        await self._follow_up(trigger.sequence)
        before = self._journal.triggers()
        verdict = drift_trigger(self._policy, self._pipeline.policy.drift.quiet, trigger, before)
        if isinstance(verdict, Trigger):
            await self._run(verdict)
        else:
            async with self._turn:  # another handler may have come to the same alarm
                await asyncio.to_thread(self._runner.skip, trigger, verdict)

    async def _follow_up(self, until: int) -> None:
        """The second run of the newest alarm, once the ledger has come so far."""
        due = follow_up(self._policy, until, self._journal.triggers())
        if due is not None and self._journal.past(due.id).ended is None:
            at = await asyncio.to_thread(order_time_of, self._ledger, due.sequence)
            await self._run(replace(due, at=at))

    async def commanded(self, commands: Records, polled: Polled) -> None:
        """A `train` command for this model; what is no command is the controller's to put aside."""
        for command in readable(commands, polled):
            if command["kind"] == "train" and command["model_name"] in ("", self._pipeline.model.name):
                await self._run(trigger_of_command(command))

    async def _fill(self, first: int) -> None:
        """Fold what lies between the kept position and the first record that came: it was acknowledged before."""
        while self.position.watch.sequence + 1 < first:
            begin = self.position.watch.sequence + 1
            last = min(first - 1, begin + GAP_ROWS - 1)
            slab = await asyncio.to_thread(self._ledger.read, self.position.following, begin, last)
            state, raised = watch(self._policy, self.position.watch, outcomes(slab.batch))
            for trigger in raised:
                await self._in_order(trigger)
            self.position = Position(state, slab.following)

    async def _run(self, trigger: Trigger) -> None:
        """Bring one run to its end, waiting for the broker or the store where they are away."""
        attempt = 0
        async with self._turn:
            while True:
                try:
                    await self._ended(trigger)
                    return
                except Retry:
                    attempt += 1
                    await asyncio.sleep(backoff(attempt))

    async def _ended(self, trigger: Trigger) -> None:
        begin = time.monotonic()
        with _in_flight(self._metrics):
            try:
                end = await asyncio.to_thread(self._runner.run, trigger)
            except (Stopped, asyncio.CancelledError):
                self._bench.leaving.set()
                raise asyncio.CancelledError from None
        self._metrics.runs.labels(trigger.kind, end).inc()
        self._metrics.seconds.observe(time.monotonic() - begin)
        await asyncio.to_thread(self._bench.prepare)


@contextlib.contextmanager
def _in_flight(metrics: RetrainerMetrics) -> Any:
    metrics.in_flight.set(1)
    try:
        yield
    finally:
        metrics.in_flight.set(0)


def trigger_of_alarm(alarm: Record) -> Trigger:
    """A record of drift.v1 as a trigger; its sequence is -1 where it came before the first outcome."""
    return Trigger(
        alarm["id"], "drift", alarm["sequence"], alarm["order_time"], max(-1, alarm["since_sequence"])
    )


def trigger_of_command(command: Record) -> Trigger:
    """A `train` command as a trigger: `sequence` and `since` may stand in its parameters."""
    try:
        said = json.loads(command["parameters"])
    except ValueError:
        said = None
    said = said if isinstance(said, dict) else {}
    return Trigger(
        command["id"],
        "command",
        _whole(said.get("sequence"), END),
        command["at"],
        _whole(said.get("since"), -1),
    )


def _whole(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and value >= 0 else otherwise
