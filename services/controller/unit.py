"""The only partition of the controller: commands, figures, workers' words and replays in, decisions out.

Decisions are rebuilt from the controller's own records when the unit is made, facts from the snapshot and the
inputs up to the committed offsets. What is gathered within a step of a replay is not committed: after a restart it
is read again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from services.controller.core.controller import Controller
from services.controller.core.facts import Facts
from services.controller.core.records import Command, Score, Word
from services.controller.core.state import Entry, State
from services.controller.core.steps import Steps
from services.controller.reading import command_of, rows_of, score_of, word_of
from services.controller.writing import Outlet
from shared.runtime.control import ReplayWord
from shared.runtime.polled import Polled
from shared.runtime.tables import Table
from shared.runtime.unit import Arrays, DeadLetter, Emission, Out

Seen = Callable[[list[Entry], State], None]


@dataclass(frozen=True, slots=True)
class Inputs:
    """The tables that are read, and the name of replays.v1."""

    commands: Table
    scores: Table
    audit: Table
    replays: str

    @property
    def topics(self) -> tuple[str, str, str]:
        """Those that are gathered, in the order in which they are folded."""
        return (self.scores.topic, self.audit.topic, self.commands.topic)


class ControllerUnit:
    """One model's versions.

    Args:
        inputs: what is read.
        outlet: what is written.
        controller: with its state rebuilt from the log; its facts come by `restore` and `replay`.
        untrained: digest of the artefact that serves where no version does; it lies in the store.
        seen: told each time decisions are committed.
    """

    def __init__(
        self, inputs: Inputs, outlet: Outlet, controller: Controller, untrained: str, seen: Seen
    ) -> None:
        self._inputs, self._outlet, self._controller = inputs, outlet, controller
        self._untrained, self._seen = untrained, seen
        self._steps = Steps()
        self._gathered: dict[str, list[Polled]] = {topic: [] for topic in inputs.topics}
        self._positions = dict.fromkeys(inputs.topics, 0)
        self._heard_all = False
        self._complete: Mapping[str, int] | None = None

    def step(self, polled: Sequence[Polled], now_ms: int) -> Emission:
        """Gather what was read; decide, unless a step of a replay is under way."""
        self._gather(polled)
        emission = Emission()
        self._controller.bootstrap(self._untrained, now_ms)
        while self._steps.until_rest():
            if self._complete != self._positions:
                break  # REST has come, but maybe not all that was written before it: see `asks`
            self._fold(emission, in_order=True)
            self._steps.take()
        if not self._steps.words and self._heard_all and not self._steps.gathering(now_ms):
            self._fold(emission, in_order=False)
        emission.next_offsets[self._inputs.replays] = self._steps.next_offset
        entries = self._controller.take()
        emission.outs = self._outlet.outs(entries)
        if entries:
            emission.after_commit.append(partial(self._seen, entries, self._controller.state))
        return emission

    def asks(self) -> Mapping[str, int] | None:
        """While REST waits: positions by topic, of which `confirm` must say that nothing lies behind them."""
        return dict(self._positions) if self._steps.until_rest() else None

    def confirm(self, positions: Mapping[str, int]) -> None:
        """Everything that was committed when REST was read lies before `positions`."""
        self._complete = positions

    def _gather(self, polled: Sequence[Polled]) -> None:
        for part in polled:
            if part.topic == self._inputs.replays:
                self._hear(part)
            else:
                self._gathered[part.topic].append(part)
                self._positions[part.topic] = int(part.offsets[-1]) + 1

    def _hear(self, part: Polled) -> None:
        for at, value in enumerate(part.values.to_list()):
            said = None if part.value_null[at] else ReplayWord.decode(value, int(part.timestamps[at]))
            self._steps.hear(int(part.offsets[at]), said)

    def _fold(self, emission: Emission, in_order: bool) -> None:
        """Decide on everything gathered; in lockstep the figures' own order rules, not their arrival's."""
        scores, words = self._scores(), self._words()
        for score in sorted(scores, key=lambda each: each.rank) if in_order else scores:
            self._controller.score(score)
        for word in words:
            self._controller.word(word)
        dead = []
        for said in self._commands():
            if isinstance(said, DeadLetter):
                dead.append(said)
            else:
                self._controller.command(said)
        emission.good += sum(len(part) for parts in self._gathered.values() for part in parts) - len(dead)
        emission.dead += dead
        emission.next_offsets |= {t: self._positions[t] for t, parts in self._gathered.items() if parts}
        self._gathered = {topic: [] for topic in self._gathered}

    def _scores(self, polled: Sequence[Polled] | None = None) -> list[Score]:
        parts = self._gathered[self._inputs.scores.topic] if polled is None else polled
        found = (score_of(read) for part in parts for read in rows_of(self._inputs.scores, part))
        return [score for score in found if score is not None]

    def _words(self, polled: Sequence[Polled] | None = None) -> list[Word]:
        parts = self._gathered[self._inputs.audit.topic] if polled is None else polled
        name = self._outlet.name
        found = (word_of(read, name) for part in parts for read in rows_of(self._inputs.audit, part))
        return [word for word in found if word is not None]

    def _commands(self, polled: Sequence[Polled] | None = None) -> list[Command | DeadLetter]:
        parts = self._gathered[self._inputs.commands.topic] if polled is None else polled
        return [command_of(part, read) for part in parts for read in rows_of(self._inputs.commands, part)]

    def replay(self, polled: Sequence[Polled]) -> None:
        """What was committed is known, and what was decided on it stands on the log already."""
        facts = self._controller.facts
        for part in polled:
            if part.topic == self._inputs.replays:
                self._hear(part)
                while self._steps.words:
                    self._steps.take()
                continue
            self._positions[part.topic] = int(part.offsets[-1]) + 1
            if part.topic == self._inputs.scores.topic:
                for score in self._scores([part]):
                    facts.score(score)
            elif part.topic == self._inputs.audit.topic:
                for word in self._words([part]):
                    facts.word(word)
            else:
                for said in self._commands([part]):
                    if isinstance(said, Command):
                        facts.command(said)

    def at_end(self, topic: str, reached: bool) -> None:
        """The loop's word; a step that has begun must be known before anything is folded."""
        if topic == self._inputs.replays:
            self._heard_all = reached

    def progress(self) -> list[Out]:
        """Nobody merges decisions."""
        return []

    def held(self) -> Mapping[str, int]:
        """Never pauses its inputs: what REST waits for stands behind the rows gathered within its step."""
        return {}

    # State: facts and steps; the versions' states are the log's.

    def snapshot(self) -> Arrays:
        """Facts, steps under way and positions, as JSON in bytes."""
        plain = {
            "facts": self._controller.facts.plain(),
            "steps": {
                name: [word.state, word.order_time, word.lease_ms, word.said_ms]
                for name, word in self._steps.under_way.items()
            },
            "next_offset": self._steps.next_offset,
            "positions": self._folded(),
        }
        return {"plain": np.frombuffer(json.dumps(plain, sort_keys=True).encode(), np.uint8)}

    def _folded(self) -> dict[str, int]:
        """Positions without what is only gathered."""
        return {
            topic: int(parts[0].offsets[0]) if parts else self._positions[topic]
            for topic, parts in self._gathered.items()
        }

    def restore(self, arrays: Arrays) -> None:
        """Take up what `snapshot` gave."""
        plain = json.loads(arrays["plain"].tobytes())
        self._controller.facts = Facts.of(plain["facts"])
        self._steps = Steps(
            {
                name: ReplayWord(name, state, order_time, lease_ms, {}, said_ms)
                for name, (state, order_time, lease_ms, said_ms) in plain["steps"].items()
            },
            next_offset=plain["next_offset"],
        )
        self._positions = plain["positions"]
        self._gathered = {topic: [] for topic in self._inputs.topics}

    def digest(self) -> str:
        """sha256 over what is known and what was decided."""
        both = self._controller.facts.digest() + self._controller.state.digest()
        return hashlib.sha256(both.encode()).hexdigest()
