"""What another policy would have decided on the log: the same pure core over the same commands, figures and words.

Commands stand where they were answered, figures where their outcomes were; a worker's word stands where it was
decided upon, or else between the figures of its time. What the log cannot know is assumed and said: that a worker
accepts a version that none was asked about, and that people would have sent the same commands.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from services.controller.core.book import Rules
from services.controller.core.controller import Controller
from services.controller.core.facts import Facts
from services.controller.core.records import ACCEPTED, Command, Score, Word
from services.controller.core.state import DECLINED, OBEYED, TRANSITION, Entry, State, rebuild
from shared.models.announcement import CHAMPION, SHADOW

Told = Score | Word | Command
Keyed = tuple[int, int, int, int, Told]
"""A record behind its place: newest outcome, figures first, place among the decisions, place in its topic."""
Step = tuple[int, int, str, str]
"""A transition: sequence, version, artefact, state."""


@dataclass(frozen=True, slots=True)
class History:
    """What stands on scores.v1, audit.v1 and commands.v1, each in offset order; `alarms` are those of drift.v1."""

    entries: Sequence[Entry]
    scores: Sequence[Score]
    words: Sequence[Word]
    commands: Sequence[Command]
    alarms: Sequence[Mapping[str, Any]] = ()

    def sequence_at(self, order_time: int) -> int:
        """The newest outcome known at an order time; -1 before the first figure."""
        return max((s.sequence for s in self.scores if s.order_time <= order_time), default=-1)


@dataclass(frozen=True, slots=True)
class Reign:
    """A version's time as champion, from the outcome at which it was decided to the next one's; -1 for no end."""

    version: int
    digest: str
    reason: str
    begin: int
    end: int
    metric: str
    value: float | None
    source: str

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Course:
    """The transitions on the log, and what came of the commands, each named by its offset on commands.v1.

    `before` is how many transitions stood before the command was answered, `verdicts` the reason it was given;
    `proposals` maps the ids of proposals to their versions; about the artefacts in `asked` workers were asked.
    """

    steps: list[Step]
    before: Mapping[int, int]
    verdicts: Mapping[int, str]
    proposals: Mapping[str, int]
    asked: set[str]

    @staticmethod
    def of(history: History) -> "Course":
        """The course that the log took, from the first decision on."""
        entries = history.entries
        before: dict[int, int] = {}
        count = 0
        for entry in entries:
            before.setdefault(entry.command_offset, count)
            count += entry.kind == TRANSITION
        return Course(
            _steps(entries),
            before,
            {e.command_offset: e.reason for e in entries if e.kind in (OBEYED, DECLINED)},
            _proposals(entries),
            {e.digest for e in entries if e.state == SHADOW} | {word.digest for word in history.words},
        )

    def renamed(self, state: State) -> dict[int, int]:
        """Numbers of versions on the log to those in a rehearsal, where both have the version."""
        return {
            self.proposals[version.command_id]: version.number
            for version in state.versions.values()
            if version.command_id in self.proposals
        }


def _steps(entries: Sequence[Entry]) -> list[Step]:
    return [(e.sequence, e.version, e.digest, e.state) for e in entries if e.kind == TRANSITION]


def in_order(history: History) -> Iterator[tuple[int, Told]]:
    """Every record with the newest outcome that was known when it was folded, in that order.

    Each topic keeps its own. A command stands where it was answered, and so does a word by which something was
    decided; other words stand by their time.
    """
    keyed = sorted((*_figures(history), *_words(history), *_commands(history)), key=lambda each: each[:4])
    for known, *_, told in keyed:
        yield known, told


def _figures(history: History) -> Iterator[Keyed]:
    known = -1
    for place, score in enumerate(history.scores):
        known = max(known, score.sequence)
        yield known, 0, 0, place, score


def _words(history: History) -> Iterator[Keyed]:
    decided = _decided(history.entries)
    sequence_at = _newest([(score.at, score.sequence) for score in history.scores])
    entry_at = _newest([(entry.at, place) for place, entry in enumerate(history.entries)])
    stands: list[tuple[int, int]] = []
    for word in history.words:
        answer = decided.get((word.at, word.version))
        if answer is None:
            by_time = (sequence_at(word.at), 2 * entry_at(word.at) + 1)
            stands.append(max([by_time, *stands[-1:]]))
        else:
            stands.append((history.entries[answer].labeled_sequence, 2 * answer))
    # None behind the next one's place: what is decided is known better than what time says.
    kept = reversed(list(accumulate(reversed(stands), min)))
    for place, ((known, after), word) in enumerate(zip(kept, history.words, strict=True)):
        yield known, 1, after, place, word


def _commands(history: History) -> Iterator[Keyed]:
    first: dict[int, int] = {}
    for place, entry in enumerate(history.entries):
        first.setdefault(entry.command_offset, place)
    for place, command in enumerate(history.commands):
        answer = first.get(command.offset)
        if answer is not None:
            yield history.entries[answer].labeled_sequence, 1, 2 * answer, place, command


def _decided(entries: Sequence[Entry]) -> dict[tuple[int, int], int]:
    """Places of decisions that no command set off, by time and version; the first of each."""
    found: dict[tuple[int, int], int] = {}
    for place, entry in enumerate(entries):
        if entry.command_offset < 0:
            found.setdefault((entry.at, entry.version), place)
    return found


def _newest(timed: Sequence[tuple[int, int]]) -> Callable[[int], int]:
    """The largest of the values up to a time; -1 before the first.

    >>> newest = _newest([(10, 1), (30, 2), (20, 3)])
    >>> newest(9), newest(10), newest(40)
    (-1, 1, 3)
    """
    ordered = sorted(timed)
    times = [time for time, _ in ordered]
    values = [-1, *accumulate((value for _, value in ordered), max)]
    return lambda time: values[bisect_right(times, time)]


def rehearse(
    history: History, rules: Rules, begin: int = -1, end: int = -1
) -> tuple[list[Entry], State, set[int]]:
    """What `rules` decide on the records from outcome `begin` to `end` (-1: all), on the state as it was then.

    Gives the decisions, the state after them, and the versions of which acceptance was assumed.
    """
    before = _before(history.entries, begin)
    controller = Controller(rules, rebuild(before, []), Facts())
    if not before and history.entries:
        first = history.entries[0]
        controller.bootstrap(first.digest, first.at)
    course = Course.of(history)
    entries = controller.take()
    steps = _steps([*before, *entries])
    assumed: set[int] = set()
    for known, told in in_order(history):
        if begin >= 0 and known < begin:
            tell(controller.facts, told)
        elif end < 0 or known <= end:
            _tell(controller, told, course, steps)
            assumed |= _assume(controller, course, assumed, told.at)
            decided = controller.take()
            entries += decided
            steps += _steps(decided)
    return entries, controller.state, assumed


def _before(entries: Sequence[Entry], begin: int) -> list[Entry]:
    """The decisions that had been made when outcome `begin` became known."""
    found: list[Entry] = []
    for entry in entries:
        if begin < 0 or entry.labeled_sequence >= begin:
            break
        found.append(entry)
    return found


def _proposals(entries: Sequence[Entry]) -> dict[str, int]:
    """Command ids of proposals to the versions that they became."""
    return {
        str(e.detail["proposal"]): e.version
        for e in entries
        if e.kind == TRANSITION and "proposal" in e.detail
    }


def tell(hearer: Controller | Facts, told: Told) -> None:
    """Let a controller decide on a record, or the facts alone take note of it."""
    if isinstance(told, Score):
        hearer.score(told)
    elif isinstance(told, Word):
        hearer.word(told)
    else:
        hearer.command(told)


def _tell(controller: Controller, told: Told, course: Course, steps: list[Step]) -> None:
    renamed = course.renamed(controller.state)
    if not isinstance(told, Command):
        tell(controller, replace(told, version=renamed.get(told.version, told.version)))
    elif steps == course.steps[: course.before[told.offset]]:
        controller.command(told)
    else:
        asked = _elsewhere(told, course.verdicts.get(told.offset, ""), renamed)
        if asked is not None:
            controller.command(asked)


def _assume(controller: Controller, course: Course, assumed: set[int], at: int) -> set[int]:
    """Let a worker accept what none was asked about on the log; gives the versions concerned."""
    found = {
        version.number: Word(ACCEPTED, version.number, version.digest, "", "assumed", "", at)
        for version in controller.state.in_state(SHADOW)
        if version.digest not in course.asked and version.number not in assumed
    }
    for word in found.values():
        controller.word(word)
    return set(found)


def _elsewhere(told: Command, verdict: str, renamed: Mapping[int, int]) -> Command | None:
    """The command where other versions stand than when it was sent; None for one that came too late then.

    Evidence against the champion of then stands for evidence against the one that serves here; evidence that was
    refused since it compared with another one is good only where that one serves.
    """
    if verdict == "sequence.changed":
        return None
    parameters = dict(told.parameters)
    compared = parameters.pop("champion", None)
    if verdict == "gate.champion_changed" and isinstance(compared, dict):
        there = compared.get("version")
        here = renamed.get(there, there) if isinstance(there, int) else there
        parameters["champion"] = compared | {"version": here}
    number = renamed.get(told.model_version, told.model_version)
    return replace(told, expected_sequence=-1, model_version=number, parameters=parameters)


def reigns(entries: Sequence[Entry], history: History, metric: str) -> list[Reign]:
    """Every champion among the decisions, with the metric that followed as far as the log knows it.

    Of a version that answered, in any role, the mean of its figures within the reign; else what the gate saw of it
    on the outcomes before; else unknown.
    """
    proposals = _proposals(history.entries)
    own = {e.version: proposals.get(str(e.detail["proposal"])) for e in entries if "proposal" in e.detail}
    crowned = [e for e in entries if e.kind == TRANSITION and e.state == CHAMPION]
    ends = [e.labeled_sequence for e in crowned[1:]] + [-1]
    found = []
    for entry, end in zip(crowned, ends, strict=True):
        number = own.get(entry.version) or entry.version
        value, source = _followed(history, number, metric, entry.labeled_sequence, end)
        if value is None:
            value, source = _judged(entries, entry.version, metric)
        begin = entry.labeled_sequence
        found.append(Reign(entry.version, entry.digest, entry.reason, begin, end, metric, value, source))
    return found


def _followed(history: History, number: int, metric: str, begin: int, end: int) -> tuple[float | None, str]:
    for role in (CHAMPION, "canary", SHADOW):
        values = [
            score.value
            for score in history.scores
            if score.counts
            and (score.version, score.role, score.metric) == (number, role, metric)
            and score.sequence > begin
            and (end < 0 or score.sequence <= end)
        ]
        if values:
            return sum(values) / len(values), f"scores as {role}"
    return None, ""


def _judged(entries: Sequence[Entry], number: int, metric: str) -> tuple[float | None, str]:
    for entry in entries:
        measures = (entry.detail.get("figures") or {}).get("measures", {})
        if entry.version == number and measures.get(metric, {}).get("candidate") is not None:
            return float(measures[metric]["candidate"]), "the gate's evidence, before it served"
    return None, "unknown: it never answered"
