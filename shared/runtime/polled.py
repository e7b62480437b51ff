"""What one poll read from one partition, as columns."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.codec.batch import Ints, Mask, Strings

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Polled:
    """Records of one partition in offset order; timestamps in milliseconds UTC.

    `headers` is None when no record has any, else one entry a row.
    """

    topic: str
    partition: int
    keys: Strings
    key_null: Mask
    values: Strings
    value_null: Mask
    offsets: Ints
    timestamps: Ints
    headers: Sequence[Headers | None] | None = None

    def __len__(self) -> int:
        return int(self.offsets.size)
