"""Which versions have which role: a fold over `models.v1`, in offset order, for one model name.

Each record is a step in the life of a version. The state holds the *claims* to the roles that are served; whether
a claim's artefact can be loaded is found out outside and comes back by `settle`. The clock is the record's own
Kafka timestamp, so that every worker, now or later, comes to the same answer.
"""

from dataclasses import dataclass, field
from typing import Literal

from shared.models.admission import Admission
from shared.models.announcement import CANARY, CHAMPION, RETIRED, SHADOW, Announcement
from shared.models.safety import ModelRefused

Verb = Literal["load", "drop", "ignore", "refuse"]
SERVED = (CHAMPION, CANARY, SHADOW)


@dataclass(frozen=True, slots=True)
class Action:
    """What one record on `models.v1` asks of a worker.

    `load`: it claims a role; see `Registry`. `drop`: the version answers nothing any more, but a champion until
    the next one comes. `ignore`: nothing; worth an audit record when `incident`. `refuse`: what serves stays, and
    an audit record says why.
    """

    verb: Verb
    offset: int
    announcement: Announcement | None
    reason: str = ""
    detail: str = ""
    incident: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """An announcement that asks for the role in its `state`, at `offset` on models.v1."""

    announcement: Announcement
    offset: int


@dataclass(slots=True)
class Registry(Admission):
    """The announcements of one model, folded.

    Champion: one register; the newest claim wins, and a retired champion stays until the next. Canary: the newest
    claim wins. Shadow: any number of versions. A version has one role, its newest.

    In `champions` and `canaries` the claims that have not been tried stand behind the one that serves, newest
    last. `superseded` gathers the claims that were replaced before anybody tried them, until taken.
    """

    champions: list[Claim] = field(default_factory=list)
    canaries: list[Claim] = field(default_factory=list)
    shadows: dict[int, Claim] = field(default_factory=dict)
    """By version, newest claim last."""
    retired: Claim | None = None
    """The newest champion that was retired: the last resort where compaction has left no other."""
    settled: set[int] = field(default_factory=set)
    """Offsets of the claims that were loaded."""
    superseded: list[Claim] = field(default_factory=list)

    @property
    def active(self) -> Announcement | None:
        """The champion that was loaded."""
        return next((c.announcement for c in self.champions if c.offset in self.settled), None)

    def claims(self) -> list[Claim]:
        """All claims to roles, in no order."""
        return [*self.champions, *self.canaries, *self.shadows.values()]

    def step(self, announcement: Announcement | None, offset: int, timestamp_ms: int) -> Action:
        """Fold one record in; None is a tombstone."""
        if announcement is None:
            return Action(
                "ignore", offset, None, "tombstone.unexpected", "the last good model stays", incident=True
            )
        if announcement.name != self.name:
            return Action("ignore", offset, announcement, "model.other", announcement.name[:100])
        try:
            self.check(announcement, timestamp_ms)
        except ModelRefused as refused:
            return Action("refuse", offset, announcement, refused.reason, refused.detail, incident=True)
        newest = self.champions[-1].announcement if self.champions else None
        stale = self.stale(announcement, newest)
        if stale:
            return Action("ignore", offset, announcement, "version.stale", stale)
        self.sequence = announcement.sequence
        return self._move(Claim(announcement, offset))

    def settle(self, claim: Claim, *, loaded: bool) -> None:
        """Say how trying a claim ended; a failed one is gone, and what serves stays."""
        if not loaded:
            self._remove(claim)
            return
        self.settled.add(claim.offset)
        for claims in (self.champions, self.canaries):
            if claim in claims:
                for older in claims[: claims.index(claim)]:
                    self._remove(older, replaced=True)

    def withdraw(self, claim: Claim, instead: Claim | None = None) -> None:
        """A claim that was loaded has failed since; as champion it gives way to `instead`, which had served."""
        if instead is not None and claim in self.champions:
            self.champions.insert(0, instead)
            self.settled.add(instead.offset)
        self._remove(claim)

    def resort(self) -> Claim | None:
        """The retired champion claims its role again where nobody else does; None where there is none."""
        if self.champions or self.retired is None:
            return None
        self.champions.append(self.retired)
        return self.retired

    def _move(self, claim: Claim) -> Action:
        """Give the version its new state."""
        said = claim.announcement
        for other in [c for c in (*self.canaries, *self.shadows.values()) if _same(c, claim)]:
            self._remove(other, replaced=True)
        if said.state == CHAMPION:
            self.champions.append(claim)
        elif said.state == CANARY:
            self.canaries.append(claim)
        elif said.state == SHADOW:
            self.shadows[said.version] = claim
        else:
            if said.state == RETIRED:
                self.retired = claim
            elif self.retired is not None and _same(self.retired, claim):
                self.retired = None
            return Action("drop", claim.offset, said)
        return Action("load", claim.offset, said)

    def _remove(self, claim: Claim, *, replaced: bool = False) -> None:
        for claims in (self.champions, self.canaries):
            if claim in claims:
                claims.remove(claim)
        if self.shadows.get(claim.announcement.version) == claim:
            del self.shadows[claim.announcement.version]
        if replaced and claim.offset not in self.settled:
            self.superseded.append(claim)
        self.settled.discard(claim.offset)


def _same(one: Claim, other: Claim) -> bool:
    return one.announcement.version == other.announcement.version
