"""Who is champion, from models.v1: an announcement that workers refuse or ignore crowns nobody here either."""

from dataclasses import dataclass, field

from shared.models.announcement import CHAMPION, ROLLBACK, Announcement
from shared.models.safety import ModelRefused
from shared.models.signing import TrustedKeys, verify


@dataclass(slots=True)
class Reign:
    """The champion of one model: a fold over models.v1, in offset order.

    An announcement is obeyed if it is one, a trusted key has signed it, it had not expired when it was written, it
    is for these features, its version has no other digest, and its sequence is above all before. A release must
    carry a higher version than the champion's, a rollback need not; a retired champion stays until the next.
    """

    name: str
    feature_fingerprint: str
    trusted: TrustedKeys
    champion: Announcement | None = None
    offset: int = -1
    """Where the champion was announced; -1 for none."""
    sequence: int = 0
    digests: dict[int, str] = field(default_factory=dict)
    """By version: its first is its only one."""

    def step(self, said: Announcement, offset: int, timestamp_ms: int) -> bool:
        """Fold one announcement in, with its Kafka timestamp; whether it is obeyed."""
        if said.name != self.name or not self._sound(said, timestamp_ms) or self._stale(said):
            return False
        self.sequence = said.sequence
        if said.state == CHAMPION:
            self.champion, self.offset = said, offset
        return True

    def _sound(self, said: Announcement, timestamp_ms: int) -> bool:
        try:
            said.check()
            verify(said, self.trusted, timestamp_ms)
        except ModelRefused:
            return False
        known = said.feature_fingerprint == self.feature_fingerprint
        return known and self.digests.setdefault(said.version, said.digest) == said.digest

    def _stale(self, said: Announcement) -> bool:
        if said.sequence <= self.sequence:
            return True
        released = said.state == CHAMPION and said.kind != ROLLBACK
        return released and self.champion is not None and said.version <= self.champion.version
