"""The join against its definition by dictionaries, and the laws that hold however its logs are read."""

import itertools
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.feedback.unit import JoinUnit
from shared.contracts.pipeline import Pipeline
from tests.unit.feedback.makers import HOLD, HORIZON, Logs, Row, reasons, shop, told

PIPELINES = {"none": shop(), "0": shop(missing="0")}
Act = tuple[str, int, int, int]  # what, event id, class or pause, a coin
KEPT = HORIZON + HOLD


@dataclass
class Known:
    """What the definition knows of one event."""

    order: int
    answered: bool
    shadows: int
    state: str = "open"
    outcome: int = -1


@dataclass
class Naive:
    """Each rule as it is written down, one accepted row at a time, with all answers at hand."""

    missing: int
    events: dict[str, Known] = field(default_factory=dict)
    waiting: list[tuple[int, str, int, bool, int]] = field(default_factory=list)
    due: list[tuple[int, str, Known]] = field(default_factory=list)
    out: list[Row] = field(default_factory=list)
    dead: list[tuple[str, int]] = field(default_factory=list)

    def say(self, kind: str, ident: str, known: Known, outcome: int, previous: int, now: int) -> None:
        for role in ["champion"] + ["shadow"] * known.shadows:
            self.out.append((kind, ident, role, outcome, previous, now))

    def pass_to(self, now: int) -> None:
        while self.due and self.due[0][0] < now:
            at, ident, known = self.due.pop(0)
            if known.state == "open" and known.answered:
                known.state, known.outcome = "default", self.missing
                self.say("MISSING", ident, known, self.missing, -1, at)
        while self.waiting and self.waiting[0][0] + HOLD < now:
            self.dead.append(("label.orphan", self.waiting.pop(0)[4]))

    def event(self, ident: str, now: int, answered: bool, shadows: int) -> None:
        self.pass_to(now)
        before = self.events.get(ident)
        if before is not None and before.order + KEPT >= now:
            return
        known = self.events[ident] = Known(now, answered, shadows)
        self.due.append((now + HORIZON, ident, known))
        for held in [w for w in self.waiting if w[1] == ident]:
            self.waiting.remove(held)
            self.apply(ident, known, held[2], held[3], now, held[4])

    def label(self, ident: str, outcome: int, corrects: bool, of: int, now: int, place: int) -> None:
        self.pass_to(now)
        known = self.events.get(ident)
        if known is None or known.order + KEPT < now:
            if of + KEPT < now:
                self.dead.append(("label.stale", place))
            else:
                self.waiting.append((now, ident, outcome, corrects, place))
            return
        self.apply(ident, known, outcome, corrects, now, place)

    def apply(self, ident: str, known: Known, outcome: int, corrects: bool, now: int, place: int) -> None:
        if not known.answered:
            self.dead.append(("label.unpredicted", place))
        elif known.state == "open":
            known.state, known.outcome = "labeled", outcome
            self.say("LABEL", ident, known, outcome, -1, now)
        elif known.state == "default":
            before, known.state, known.outcome = known.outcome, "labeled", outcome
            self.say("LATE", ident, known, outcome, before, now)
        elif outcome != known.outcome and corrects:
            before, known.outcome = known.outcome, outcome
            self.say("CORRECTION", ident, known, outcome, before, now)
        elif outcome != known.outcome:
            self.dead.append(("label.conflict", place))


def play(acts: list[Act], pipeline: Pipeline, missing: int) -> tuple[Logs, Naive]:
    """The four logs that these acts leave, and what the definition makes of them."""
    logs, naive, now = Logs(pipeline), Naive(missing), 1
    for what, who, number, coin in acts:
        ident = f"e{who}"
        if what == "pause":
            now += number * 97
            logs.progress(now, idle=coin == 0)
            naive.pass_to(now)
        elif what == "event":
            answered, shadows = coin > 0, number % 3
            place = logs.event(ident, now)
            vector = logs.vector(place, ident, now)
            if answered:
                for version in range(shadows):
                    logs.answer(place, ident, now, vector, role="shadow", model_version=version)
                logs.answer(place, ident, now, vector, shadows=shadows)
            naive.event(ident, now, answered, shadows)
        else:
            of = max(0, now - number * 300)
            logs.label(ident, number % 2, now, of=of, fixed=coin == 0)
            naive.label(ident, number % 2, coin == 0, of, now, 1_000 + now)
        now += 1
    # An answered event behind all others: predictions have then passed every vector.
    logs.whole("last", now)
    naive.event("last", now, True, 0)
    return logs, naive


acts = st.lists(
    st.one_of(
        st.tuples(st.just("event"), st.integers(0, 4), st.integers(0, 5), st.integers(0, 4)),
        st.tuples(st.just("label"), st.integers(0, 4), st.integers(0, 7), st.integers(0, 3)),
        st.tuples(st.just("pause"), st.just(0), st.integers(1, 12), st.integers(0, 1)),
    ),
    max_size=40,
)
missings = st.sampled_from(["none", "0"])


@dataclass
class Reader:
    """Feeds a unit the logs, piece by piece, and gathers what it says."""

    logs: Logs
    unit: JoinUnit
    at: dict[str, int] = field(default_factory=dict)
    out: list[Row] = field(default_factory=list)
    dead: list[tuple[str, int]] = field(default_factory=list)

    def read(self, topic: str, count: int) -> None:
        first = self.at.get(topic, 0)
        part = self.logs.polled(topic, first, first + count)
        if len(part):
            self.at[topic] = first + len(part)
            emission = self.unit.step([part], 0)
            assert emission.next_offsets == {topic: self.at[topic]}
            self.out += told(self.logs, emission)
            self.dead += reasons(emission.dead)

    def finish(self) -> None:
        for topic in self.logs.topics:
            self.read(topic, 10_000)


@settings(deadline=None)
@given(acts, missings)
def test_the_join_is_its_definition(found: list[Act], missing: str) -> None:
    logs, naive = play(found, PIPELINES[missing], -1 if missing == "none" else 0)
    reader = Reader(logs, logs.unit())
    reader.finish()
    assert reader.out == naive.out
    assert sorted(reader.dead) == sorted(naive.dead)


@settings(deadline=None)
@given(acts, missings, st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=30))
def test_which_topic_is_read_when_does_not_matter(
    found: list[Act], missing: str, reads: list[tuple[int, int]]
) -> None:
    logs, _ = play(found, PIPELINES[missing], -1)
    whole, pieces = Reader(logs, logs.unit()), Reader(logs, logs.unit())
    whole.finish()
    for which, count in reads:
        pieces.read(list(logs.topics)[which], count)
    pieces.finish()
    assert pieces.out == whole.out
    assert sorted(pieces.dead) == sorted(whole.dead)
    assert pieces.unit.digest() == whole.unit.digest()


@settings(deadline=None)
@given(acts, missings, st.data())
def test_a_restart_anywhere_leaves_no_trace(found: list[Act], missing: str, data: Any) -> None:
    """Once from a snapshot, and once by replaying the committed offsets topic by topic in another order."""
    logs, _ = play(found, PIPELINES[missing], -1)
    reads = data.draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=20))
    whole, broken = Reader(logs, logs.unit()), Reader(logs, logs.unit())
    for which, count in reads:
        for reader in (whole, broken):
            reader.read(list(logs.topics)[which], count)
    replayed = logs.unit()
    for topic in data.draw(st.permutations(list(logs.topics))):
        if broken.at.get(topic):
            replayed.replay([logs.polled(topic, 0, broken.at[topic])])
    restored = logs.unit()
    restored.restore(broken.unit.snapshot())
    assert restored.digest() == broken.unit.digest() == replayed.digest()
    whole.finish()
    for unit in (restored, replayed):
        other = Reader(logs, unit, dict(broken.at), list(broken.out), list(broken.dead))
        other.finish()
        assert other.out == whole.out
        assert sorted(other.dead) == sorted(whole.dead)
        assert unit.digest() == whole.unit.digest()


def _settled(rows: list[Row]) -> dict[tuple[str, str], int]:
    """The newest class of each event, once a role."""
    return {(ident, role): outcome for _, ident, role, outcome, _, _ in rows}


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 1), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
    st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_what_came_twice_or_in_another_order_within_the_horizon_settles_alike(
    outcomes: list[int], random: Any, doubled: list[bool]
) -> None:
    pipeline = PIPELINES["0"]
    clean, shuffled = Logs(pipeline), Logs(pipeline)
    for logs in (clean, shuffled):
        for at in range(len(outcomes)):
            logs.whole(f"e{at}", 10 + at)
    order = list(range(len(outcomes)))
    for at in order:
        clean.label(f"e{at}", outcomes[at], 100 + at)
    random.shuffle(order)
    times = itertools.count(100)
    for at in order:
        shuffled.label(f"e{at}", outcomes[at], next(times))
        if doubled[at]:
            shuffled.label(f"e{at}", outcomes[at], next(times))
            shuffled.label(f"e{at}", 1 - outcomes[at], next(times))
    results = []
    for logs in (clean, shuffled):
        reader = Reader(logs, logs.unit())
        reader.finish()
        results.append(_settled(reader.out))
    assert results[0] == results[1]
