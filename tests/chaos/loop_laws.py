"""What must hold of a pipeline's topics whatever was killed; each law gives the breaches it finds. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Record = Mapping[str, Any]
ENDS = frozenset({"done", "failed", "skipped"})
CHAMPION = "champion"
NEXT: Mapping[str, frozenset[str]] = {
    "": frozenset({"candidate", "champion"}),
    "candidate": frozenset({"validated", "rejected"}),
    "validated": frozenset({"awaiting", "shadow", "canary", "champion", "rejected"}),
    "awaiting": frozenset({"shadow", "canary", "champion", "rejected"}),
    "shadow": frozenset({"canary", "champion", "rejected"}),
    "canary": frozenset({"champion", "rejected", "rolled_back"}),
    "champion": frozenset({"retired", "rolled_back"}),
    "retired": frozenset({"champion"}),
    "rolled_back": frozenset({"champion"}),
}
"""The states that may follow on a version's state."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the ledger, or of a dataset's segments."""

    sequence: int
    event: str
    role: str
    kind: str
    label_class: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True)
class Left:
    """What a run left: records in offset order, those of commands.v1 and of models.v1 with their offset."""

    runs: Sequence[Record] = ()
    commands: Sequence[tuple[int, Record]] = ()
    audit: Sequence[Record] = ()
    models: Sequence[tuple[int, Record]] = ()
    ledger: Sequence[Row] = ()
    datasets: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    differences: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By dataset: what differs when it is built again from the log."""

    @property
    def transitions(self) -> list[Record]:
        """The controller's decisions that move a version."""
        return [each for each in self.audit if each["kind"] == "model.transition"]


def breaches(left: Left) -> list[str]:
    """Every breach of every law."""
    laws = (once_each, proposals_answered, trained_once, chains, announced_once, one_champion, one_ledger)
    return [found for law in laws for found in law(left)]


def once_each(left: Left) -> Iterator[str]:
    """Each trigger is taken up once and ends once, and at most one proposal follows, with what the end says."""
    proposed: dict[str, list[Record]] = {}
    for _, command in left.commands:
        if command["kind"] == "propose":
            proposed.setdefault(command["id"], []).append(command)
    runs = {each["id"] for each in left.runs}
    yield from (f"{name} belongs to no run" for name in proposed if name.removeprefix("propose-") not in runs)
    for run in sorted(runs):
        steps = [each for each in left.runs if each["id"] == run]
        ends = [each for each in steps if each["step"] in ENDS]
        begun = sum(each["step"] == "trigger" for each in steps)
        if len(ends) != 1 or begun > 1:
            yield f"run {run} began {begun} times and ended {len(ends)} times"
        wanted = int(bool(ends) and ends[0]["step"] == "done")
        found = proposed.get(f"propose-{run}", [])
        if len(found) != wanted:
            yield f"run {run} proposed {len(found)} times where {wanted} follows from its end"
        elif wanted and found[0]["model_digest"] not in ends[0]["detail"]:
            yield f"run {run} ended with another model than it proposed"


def proposals_answered(left: Left) -> Iterator[str]:
    """One version comes of each proposal."""
    born = Counter(each["command_offset"] for each in left.transitions if each["state"] == "candidate")
    places = {offset for offset, command in left.commands if command["kind"] == "propose"}
    yield from (f"{born[at]} versions came of the proposal at {at}" for at in places if born[at] != 1)
    yield from (f"a version came of {at}, which is no proposal" for at in born.keys() - places)


def trained_once(left: Left) -> Iterator[str]:
    """No dataset has an event twice or a hole, and the log gives each again to the last byte."""
    for name, rows in left.datasets.items():
        events = Counter(row.event for row in rows if row.role != "shadow")
        yield from (f"dataset {name} has event {e} {n} times" for e, n in events.items() if n > 1)
        sequences = [row.sequence for row in rows]
        if sequences != list(range(sequences[0], sequences[0] + len(sequences))):
            yield f"dataset {name} has holes or repeats"
    yield from (f"dataset {name}: {what}" for name, said in left.differences.items() for what in said)


def chains(left: Left) -> Iterator[str]:
    """Each version goes a legal way, from where it stood, and comes into force once."""
    stands: dict[int, str] = {}
    crowned: Counter[int] = Counter()
    for each in left.transitions:
        version, before = each["model_version"], stands.get(each["model_version"], "")
        if each["previous"] != before or each["state"] not in NEXT.get(before, ()):
            yield f"version {version} was {before!r} and went from {each['previous']!r} to {each['state']!r}"
        stands[version] = each["state"]
        crowned[version] += each["state"] == CHAMPION and before not in ("retired", "rolled_back")
    yield from (f"version {v} came into force {n} times" for v, n in crowned.items() if n > 1)


def announced_once(left: Left) -> Iterator[str]:
    """Every transition is announced once, in its order, without a gap."""
    decided = [(each["model_version"], each["state"]) for each in left.transitions]
    announced = [(each["version"], each["state"]) for _, each in left.models]
    if decided != announced:
        yield f"decided was {decided}, announced {announced}"
    sequences = [each["sequence"] for _, each in left.models]
    if sequences != list(range(1, len(sequences) + 1)):
        yield f"announcements count {sequences}"


def one_champion(left: Left) -> Iterator[str]:
    """At no offset are there two; there is none only between a champion's end and the next record."""
    stands: dict[int, str] = {}
    none = False
    for offset, each in left.models:
        stands[each["version"]] = each["state"]
        champions = sorted(version for version, state in stands.items() if state == CHAMPION)
        if len(champions) > 1:
            yield f"at offset {offset} versions {champions} are champions"
        if none and not champions:
            yield f"at offset {offset} there is still no champion"
        none = not champions


def one_ledger(left: Left) -> Iterator[str]:
    """Sequences count from 0 without a gap, and each event stands there once a kind and role."""
    sequences = [row.sequence for row in left.ledger]
    if sequences != list(range(len(sequences))):
        yield "the ledger has holes or repeats"
    rows = Counter((row.event, row.role, row.kind) for row in left.ledger)
    yield from (f"{which} stands {n} times in the ledger" for which, n in rows.items() if n > 1)
