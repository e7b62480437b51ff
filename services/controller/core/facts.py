"""What the controller knows of the world: a fold a topic, none of which looks at another.

So facts are the same however the topics' records came between each other, and a restart has them again by
reading each topic up to where it was committed.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from services.controller.core.records import ACCEPTED, Command, Score, Word

MOST_IDS = 10_000
"""Commands whose ids are remembered; proposals are remembered by their version for ever."""
MOST_FIGURES = 5_000
MOST_ACCEPTED = 1_000


@dataclass(frozen=True, slots=True)
class Figure:
    """The newest value of one metric of one version in one role."""

    value: float
    rows: int
    total: int
    sequence: int


@dataclass(slots=True)
class Facts:
    """Newest figures, versions that a worker has accepted, ids of commands, and how far the ledger is known."""

    sequence: int = -1
    order_time: int = -1
    figures: dict[tuple[int, str, str], Figure] = field(default_factory=dict)
    totals: dict[tuple[int, str], int] = field(default_factory=dict)
    accepted: dict[tuple[int, str], None] = field(default_factory=dict)
    ids: dict[str, None] = field(default_factory=dict)

    def score(self, score: Score) -> None:
        """Take in a figure; an older one than is known changes nothing."""
        if score.sequence > self.sequence:
            self.sequence, self.order_time = score.sequence, max(self.order_time, score.order_time)
        if not score.counts:
            return
        key = (score.version, score.role, score.metric)
        known = self.figures.get(key)
        if known is not None and known.sequence > score.sequence:
            return
        self.figures[key] = Figure(score.value, score.rows, score.total, score.sequence)
        role = (score.version, score.role)
        self.totals[role] = max(self.totals.get(role, 0), score.total)
        if len(self.figures) > MOST_FIGURES:
            oldest = min(self.figures, key=lambda each: (self.figures[each].sequence, each))
            del self.figures[oldest]

    def word(self, word: Word) -> None:
        """Take in a worker's word."""
        if word.kind == ACCEPTED:
            self.accepted[word.version, word.digest] = None
            while len(self.accepted) > MOST_ACCEPTED:
                del self.accepted[next(iter(self.accepted))]

    def command(self, command: Command) -> bool:
        """Remember the command's id; False where it was known."""
        if command.id in self.ids:
            return False
        self.ids[command.id] = None
        while len(self.ids) > MOST_IDS:
            del self.ids[next(iter(self.ids))]
        return True

    def figure(self, version: int, role: str, metric: str) -> Figure | None:
        """The newest figure, if there is one."""
        return self.figures.get((version, role, metric))

    def total(self, version: int, role: str) -> int:
        """Labelled rows of this version in this role so far."""
        return self.totals.get((version, role), 0)

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "sequence": self.sequence,
            "order_time": self.order_time,
            "figures": [
                [*key, f.value, f.rows, f.total, f.sequence] for key, f in sorted(self.figures.items())
            ],
            "totals": [[*key, total] for key, total in sorted(self.totals.items())],
            "accepted": [list(key) for key in self.accepted],
            "ids": list(self.ids),
        }

    @staticmethod
    def of(plain: dict[str, Any]) -> "Facts":
        """What `plain` gave."""
        return Facts(
            plain["sequence"],
            plain["order_time"],
            {(v, role, m): Figure(*rest) for v, role, m, *rest in plain["figures"]},
            {(v, role): total for v, role, total in plain["totals"]},
            dict.fromkeys((version, digest) for version, digest in plain["accepted"]),
            dict.fromkeys(plain["ids"]),
        )

    def digest(self) -> str:
        """sha256 over all of it."""
        return hashlib.sha256(json.dumps(self.plain(), sort_keys=True).encode()).hexdigest()
