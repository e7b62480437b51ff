"""A replay in lockstep, as the controller hears it: from STEP to REST it only gathers."""

from collections import deque
from dataclasses import dataclass, field, replace

from shared.runtime.control import CLOSED, REST, STEP, ReplayWord


@dataclass(slots=True)
class Steps:
    """The steps under way by replay, and the words that have not been taken yet.

    A replay that falls silent for longer than its lease counts as dead: what was gathered is folded then.
    """

    under_way: dict[str, ReplayWord] = field(default_factory=dict)
    words: deque[tuple[int, ReplayWord | None]] = field(default_factory=deque)
    next_offset: int = 0

    def hear(self, offset: int, word: ReplayWord | None) -> None:
        """A record of replays.v1 at `offset`; None for what is no word."""
        self.words.append((offset, word))

    def until_rest(self) -> bool:
        """Take words up to one that ends a step; True where that one stands first, and waits for `rest`."""
        while self.words:
            word = self.words[0][1]
            if word is not None and word.state in (REST, CLOSED) and word.id in self.under_way:
                return True
            self.take()
        return False

    def take(self) -> None:
        """Fold the first word."""
        offset, word = self.words.popleft()
        self.next_offset = offset + 1
        if word is None:
            return
        if word.state == STEP:
            self.under_way[word.id] = word
        elif word.state in (REST, CLOSED):
            self.under_way.pop(word.id, None)
        elif word.id in self.under_way:
            self.under_way[word.id] = replace(self.under_way[word.id], said_ms=word.said_ms)

    def gathering(self, now_ms: int) -> bool:
        """Whether a step is under way whose replay is alive at `now_ms`."""
        return any(now_ms - word.said_ms <= word.lease_ms for word in self.under_way.values())
