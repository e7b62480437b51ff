"""The dead-letter queue's fuse: too many bad records in a row stop the service."""

from dataclasses import dataclass

from shared.errors import FuseBlown


@dataclass(slots=True)
class Fuse:
    """Counts bad records since the last good one.

    >>> fuse = Fuse(limit=3)
    >>> fuse.watch(good=0, bad=2); fuse.watch(good=1, bad=2); fuse.in_a_row
    2
    """

    limit: int
    in_a_row: int = 0

    def watch(self, good: int, bad: int) -> None:
        """Take in one batch; raises `FuseBlown` at `limit` bad records without a good one between."""
        self.in_a_row = bad if good else self.in_a_row + bad
        if self.in_a_row >= self.limit:
            raise FuseBlown(
                f"{self.in_a_row} bad records in a row; nothing of the last batch was committed; see the "
                "dead letters' reasons, mend the producer or the contract, then start the service again"
            )
