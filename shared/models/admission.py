"""Which announcements of one model are obeyed: the rule that all readers of models.v1 go by."""

from dataclasses import dataclass, field

from shared.models.announcement import CHAMPION, ROLLBACK, Announcement
from shared.models.safety import ModelRefused
from shared.models.signing import TrustedKeys, verify


@dataclass(slots=True)
class Admission:
    """An announcement counts if it is one, a trusted key has signed it, it had not expired when it was written, it
    is for these features, its version has no other digest, and its sequence is above all before. A release must
    carry a higher version than the champion's, a rollback need not.
    """

    name: str
    feature_fingerprint: str
    trusted: TrustedKeys
    digests: dict[int, str] = field(default_factory=dict)
    """By version: its first is its only one."""
    sequence: int = 0
    """The highest obeyed."""

    def check(self, said: Announcement, timestamp_ms: int) -> None:
        """Refuse with `ModelRefused` what nobody may obey; `timestamp_ms` is the record's own."""
        said.check()
        verify(said, self.trusted, timestamp_ms)
        if said.feature_fingerprint != self.feature_fingerprint:
            raise ModelRefused(
                "features.mismatch",
                f"announced for features {said.feature_fingerprint[:12]}, "
                f"this pipeline has {self.feature_fingerprint[:12]}",
            )
        first = self.digests.setdefault(said.version, said.digest)
        if first != said.digest:
            raise ModelRefused(
                "artefact.conflict",
                f"version {said.version} is {first[:12]}, not {said.digest[:12]};"
                " release the other artefact under a new version",
            )

    def stale(self, said: Announcement, champion: Announcement | None) -> str:
        """Why it says nothing new while `champion` reigns, or an empty text."""
        if said.sequence <= self.sequence:
            return f"sequence {said.sequence} is not above {self.sequence}, which was obeyed"
        if champion is None or said.kind == ROLLBACK or said.state != CHAMPION:
            return ""
        if said.version <= champion.version:
            return f"version {said.version} is not above {champion.version}; announce a rollback"
        return ""
