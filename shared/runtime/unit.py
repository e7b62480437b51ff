"""What the loop and a service's unit say to each other.

A *unit* is one partition number of a service: all that is read from the partitions of that number, and
the state over it. Units move between workers whole. A unit is deterministic: it is given what was read and
what the clock says, and returns what the world should now hear; it does no input or output itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shared.codec.batch import Strings
from shared.runtime.polled import Headers, Polled

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Out:
    """Values for one topic; without `partitions` the producer places each by its key (murmur2)."""

    topic: str
    keys: Strings | None
    values: Strings
    partitions: npt.NDArray[np.int32] | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record that cannot be processed, with what the dead-letter topic will say of it."""

    reason: str
    message: str
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers | None = None
    error_class: str = "BadRecord"


@dataclass(slots=True)
class Emission:
    """What one step of a unit gives: outputs, dead letters, and how far the input is done with.

    `next_offsets` maps an input topic to the offset to commit for the unit's partition: everything before it
    is either in the outputs, in the dead letters, or in the unit's state.
    `good` counts the rows that were not dead letters, for the fuse. `after_commit` is called once the
    transaction stands.
    """

    outs: list[Out] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    next_offsets: dict[str, int] = field(default_factory=dict)
    good: int = 0
    late: int = 0
    after_commit: list[Callable[[], None]] = field(default_factory=list)


class Unit(Protocol):
    """One partition number's fold."""

    def step(self, polled: Sequence[Polled], now_ms: int) -> Emission:
        """Take what was read (maybe nothing: a tick) and return what follows from it."""
        ...

    def replay(self, polled: Sequence[Polled]) -> None:
        """Fold what was committed before, without a word outside: leaves the state as `step` had left it."""
        ...

    def at_end(self, topic: str, reached: bool) -> None:
        """The loop's word that the unit's partition of `topic` has no more records for now, or has again."""
        ...

    def progress(self) -> list[Out]:
        """Where this unit has come to, for every partition that it writes to; empty if it tells nobody."""
        ...

    def held(self) -> Mapping[str, int]:
        """How many rows of each input topic wait for the others: the loop pauses those far ahead."""
        ...

    def snapshot(self) -> Arrays:
        """The whole state as plain arrays."""
        ...

    def restore(self, arrays: Arrays) -> None:
        """Take up the state that `snapshot` gave."""
        ...

    def digest(self) -> str:
        """sha256 over the state's meaning: equal for equal histories, however they were cut."""
        ...
