"""The state of every model version, as a fold over the controller's own decisions.

A decision is an `Entry`: one record on audit.v1, and for a transition one announcement on models.v1. Nothing
but entries changes the state, so what is on the log is enough to have it again, whatever else was read when.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from shared.models.announcement import (
    AWAITING,
    CANARY,
    CHAMPION,
    RELEASE,
    RETIRED,
    SHADOW,
    VALIDATED,
    Announcement,
)

TRANSITION = "model.transition"
INCIDENT = "model.incident"
OBEYED = "command.obeyed"
DECLINED = "command.refused"
OWN_KINDS = frozenset({TRANSITION, INCIDENT, OBEYED, DECLINED})
FROZEN, THAWED = "controller.frozen", "controller.unfrozen"
BOOTSTRAP = "bootstrap"
ON_TRIAL = frozenset({SHADOW, CANARY})
IN_FLIGHT = frozenset({VALIDATED, AWAITING, SHADOW, CANARY})


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision. `detail` is JSON: of a transition the announcement's sequence, kind and share, and figures."""

    kind: str
    version: int
    digest: str
    previous: str
    state: str
    actor: str
    reason: str
    at: int
    evidence: str = ""
    labeled_sequence: int = -1
    command_offset: int = -1
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sequence(self) -> int:
        """The announcement's sequence; -1 where nothing is announced."""
        return int(self.detail.get("sequence", -1)) if self.kind == TRANSITION else -1

    def announcement(self, name: str, fingerprint: str) -> Announcement | None:
        """What models.v1 shall hear, unsigned; None for what is no transition."""
        if self.kind != TRANSITION:
            return None
        return Announcement(
            name=name,
            version=self.version,
            digest=self.digest,
            feature_fingerprint=fingerprint,
            sequence=self.sequence,
            issued_at=self.at,
            kind=self.detail["announced"],
            state=self.state,
            share=self.detail["share"],
            reason=self.reason,
        )

    def detail_text(self) -> str:
        """`detail` in its only form."""
        return json.dumps(dict(self.detail), sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(slots=True)
class Version:
    """One model version: where it stands, and what its rules need to remember of how it came there.

    `entered` is how many labelled rows of its present role it had when it entered its state; `predecessor` the
    champion that it replaced first; `baseline` what that one's watched metric was then; `approved` whether a
    person let it on trial.
    """

    number: int
    digest: str
    state: str
    since: int = -1
    order_time: int = -1
    reason: str = ""
    evidence: str = ""
    command_id: str = ""
    entered: int = 0
    crowned: bool = False
    predecessor: int | None = None
    baseline: float | None = None
    watched: bool = False
    approved: bool = False


@dataclass(slots=True)
class State:
    """All versions, the last sequence given out, and whether promotions are frozen."""

    versions: dict[int, Version] = field(default_factory=dict)
    sequence: int = 0
    frozen: bool = False
    newest: str = ""

    @property
    def champion(self) -> Version | None:
        """The version that serves."""
        return next((v for v in self.versions.values() if v.state == CHAMPION), None)

    def in_state(self, *states: str) -> list[Version]:
        """Versions in any of `states`, by number."""
        return [self.versions[n] for n in sorted(self.versions) if self.versions[n].state in states]

    @property
    def next_version(self) -> int:
        """A number that no version has had."""
        return max(self.versions, default=0) + 1

    def apply(self, entry: Entry) -> None:
        """Fold one decision in; ValueError where it does not follow on what was decided before."""
        if entry.kind == OBEYED and entry.reason in (FROZEN, THAWED):
            self.frozen = entry.reason == FROZEN
        elif entry.kind == INCIDENT and entry.version in self.versions:
            self.versions[entry.version].watched = False
        elif entry.kind == TRANSITION:
            self._move(entry)

    def _move(self, entry: Entry) -> None:
        if entry.sequence <= self.sequence:
            raise ValueError(f"announcement {entry.sequence} does not follow {self.sequence}")
        detail = entry.detail
        known = self.versions.get(entry.version)
        if known is None:
            # One that was announced by a key nobody trusts any more is taken as the log describes it.
            known = Version(entry.version, entry.digest, entry.previous, crowned=entry.previous == CHAMPION)
            self.versions[entry.version] = known
        if known.state != entry.previous:
            raise ValueError(f"version {entry.version} is {known.state!r}, not {entry.previous!r}")
        known.state, known.since, known.reason = entry.state, entry.labeled_sequence, entry.reason
        known.order_time = int(detail.get("order_time", -1))
        known.evidence = entry.evidence or known.evidence
        known.command_id = str(detail.get("proposal", known.command_id))
        known.entered = int(detail.get("entered", 0))
        known.watched = entry.state == CHAMPION and bool(detail.get("watched", False))
        known.approved = known.approved or bool(detail.get("approved", False))
        if entry.state == CHAMPION:
            known.baseline = detail.get("baseline")
            if not known.crowned:
                known.crowned, known.predecessor = True, detail.get("predecessor")
        self.sequence = entry.sequence
        self.newest = f"version {entry.version} became {entry.state} by {entry.actor} ({entry.reason})"

    def adopt(self, said: Announcement) -> None:
        """Take in a trusted announcement that no controller made: its version serves, the one before retires."""
        before = self.champion
        if before is not None and before.number != said.version:
            before.state = RETIRED
        known = self.versions.setdefault(said.version, Version(said.version, said.digest, ""))
        known.state, known.reason = CHAMPION, said.kind
        if not known.crowned:
            known.crowned = True
            known.predecessor = before.number if before is not None and said.kind == RELEASE else None
        self.sequence = said.sequence
        self.newest = f"version {said.version} was announced by hand"

    def digest(self) -> str:
        """sha256 over all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def rebuild(entries: list[Entry], announced: list[Announcement]) -> State:
    """The state again: the controller's own decisions, and trusted announcements that it did not make.

    Both in the order of their sequences. ValueError where decisions do not follow on each other.
    """
    own = {entry.sequence for entry in entries}
    foreign = sorted((s for s in announced if s.sequence not in own), key=lambda s: s.sequence)
    state = State()
    for entry in entries:
        while entry.kind == TRANSITION and foreign and foreign[0].sequence < entry.sequence:
            state.adopt(foreign.pop(0))
        state.apply(entry)
    for said in foreign:
        state.adopt(said)
    return state
