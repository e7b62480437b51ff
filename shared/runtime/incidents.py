"""What a worker had to skip, said once: in the transaction whose offsets pass it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.kafka.unreadable import Unreadable
from shared.runtime.unit import DeadLetter, Emission

UNREADABLE = "batch.unreadable"
# Kafka's own word for a record without a time.
NO_TIME = -1


@dataclass(frozen=True, slots=True)
class Incident:
    """A skipped batch, and the offset of its partition up to which everything before it must be done with."""

    batch: Unreadable
    after: int


@dataclass(slots=True)
class Incidents:
    """The incidents of one unit that no transaction holds yet.

    An incident belongs to the transaction that commits past its batch. Before that, a restart meets the batch
    again and says it then; after it, never again.
    """

    waiting: list[Incident] = field(default_factory=list)

    def add(self, batch: Unreadable, after: int) -> None:
        """`batch` was skipped when everything before `after` had been read."""
        self.waiting.append(Incident(batch, after))

    def due(self, reached: Mapping[str, int]) -> Emission | None:
        """Dead letters and offsets of what may be told now; `reached` is what will be committed by topic."""
        at = dict(reached)
        emission = Emission()
        kept = []
        for incident in self.waiting:
            batch = incident.batch
            if at.get(batch.topic, 0) < incident.after:
                kept.append(incident)
                continue
            at[batch.topic] = max(at.get(batch.topic, 0), batch.next_offset)
            emission.dead.append(letter(batch))
            emission.next_offsets[batch.topic] = at[batch.topic]
        self.waiting = kept
        return emission if emission.dead else None


def letter(batch: Unreadable) -> DeadLetter:
    """The dead letter of a skipped batch; there are no bytes to carry."""
    return DeadLetter(
        reason=UNREADABLE,
        message=(
            f"offsets {batch.first} to {batch.next_offset - 1} of {batch.topic}/{batch.partition} were skipped: "
            f"{batch.error}; find the producer, mend its compression, and send its records again"
        ),
        topic=batch.topic,
        partition=batch.partition,
        offset=batch.first,
        timestamp=NO_TIME,
        key=None,
        value=None,
        error_class="UnreadableBatch",
    )
