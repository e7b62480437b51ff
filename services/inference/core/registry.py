"""Which announcement to obey: a fold over `models.v1`, in offset order, for one model name.

The state is what was obeyed; loading happens outside, and its outcome comes back by `settle`. The clock is
the record's own Kafka timestamp, so that every worker, now or later, comes to the same answer.
"""

from dataclasses import dataclass, field
from typing import Literal

from shared.models.announcement import ROLLBACK, Announcement
from shared.models.safety import ModelRefused
from shared.models.signing import TrustedKeys, verify

Verb = Literal["load", "ignore", "refuse"]


@dataclass(frozen=True, slots=True)
class Action:
    """What one record on `models.v1` asks of a worker.

    `load`: fetch and prove the artefact, then `settle`. `ignore`: nothing; worth an audit record when
    `incident`. `refuse`: the serving model stays, and an audit record says why.
    """

    verb: Verb
    offset: int
    announcement: Announcement | None
    reason: str = ""
    detail: str = ""
    incident: bool = False


@dataclass(slots=True)
class Registry:
    """The announcements of one model, folded.

    Releases must carry a higher version than what serves and a higher sequence than anything obeyed; a
    rollback only a higher sequence. The first digest of a version is its only one.
    """

    name: str
    feature_fingerprint: str
    trusted: TrustedKeys
    digests: dict[int, str] = field(default_factory=dict)
    sequence: int = 0
    active: Announcement | None = None
    pending: Announcement | None = None

    def step(self, announcement: Announcement | None, offset: int, timestamp_ms: int) -> Action:
        """Fold one record in; None is a tombstone."""
        if announcement is None:
            return Action(
                "ignore", offset, None, "tombstone.unexpected", "the last good model stays", incident=True
            )
        if announcement.name != self.name:
            return Action("ignore", offset, announcement, "model.other", announcement.name[:100])
        try:
            announcement.check()
            verify(announcement, self.trusted, timestamp_ms)
            self._check_known(announcement)
        except ModelRefused as refused:
            return Action("refuse", offset, announcement, refused.reason, refused.detail, incident=True)
        stale = self._stale(announcement)
        if stale:
            return Action("ignore", offset, announcement, "version.stale", stale)
        self.sequence = announcement.sequence
        self.pending = announcement
        return Action("load", offset, announcement)

    def settle(self, announcement: Announcement, *, loaded: bool) -> None:
        """Say how a `load` ended; a failed one leaves what serves."""
        if self.pending == announcement:
            self.pending = None
        if loaded:
            self.active = announcement

    def _check_known(self, announcement: Announcement) -> None:
        if announcement.feature_fingerprint != self.feature_fingerprint:
            raise ModelRefused(
                "features.mismatch",
                f"announced for features {announcement.feature_fingerprint[:12]}, "
                f"this pipeline has {self.feature_fingerprint[:12]}",
            )
        first = self.digests.setdefault(announcement.version, announcement.digest)
        if first != announcement.digest:
            raise ModelRefused(
                "artefact.conflict",
                f"version {announcement.version} is {first[:12]}, not {announcement.digest[:12]};"
                " release the other artefact under a new version",
            )

    def _stale(self, announcement: Announcement) -> str:
        """Why this record says nothing new, or an empty text."""
        if announcement.sequence <= self.sequence:
            return f"sequence {announcement.sequence} is not above {self.sequence}, which was obeyed"
        current = self.pending or self.active
        if current is None or announcement.kind == ROLLBACK:
            return ""
        if announcement.version <= current.version:
            return f"version {announcement.version} is not above {current.version}; announce a rollback"
        return ""
