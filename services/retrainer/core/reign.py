"""Who is champion, from models.v1: an announcement that workers refuse or ignore crowns nobody here either."""

from dataclasses import dataclass

from shared.models.admission import Admission
from shared.models.announcement import CHAMPION, Announcement
from shared.models.safety import ModelRefused


@dataclass(slots=True)
class Reign(Admission):
    """The champion of one model: a fold over models.v1, in offset order; a retired one stays until the next."""

    champion: Announcement | None = None
    offset: int = -1
    """Where the champion was announced; -1 for none."""

    def step(self, said: Announcement, offset: int, timestamp_ms: int) -> bool:
        """Fold one announcement in, with its Kafka timestamp; whether it is obeyed."""
        if said.name != self.name:
            return False
        try:
            self.check(said, timestamp_ms)
        except ModelRefused:
            return False
        if self.stale(said, self.champion):
            return False
        self.sequence = said.sequence
        if said.state == CHAMPION:
            self.champion, self.offset = said, offset
        return True
