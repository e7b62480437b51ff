"""What every table of pipeline.toml is made of: names, durations, instants, and the frozen base."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
MAX_DURATION_MS = 36_500 * 86_400_000
"""A hundred years: sums of durations and times stay far inside of 64 bits."""

NAME = r"^[a-z][a-z0-9_]{0,62}$"
PIPELINE_NAME = r"^[a-z][a-z0-9_-]{0,62}$"
AVRO_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"


def parse_duration(value: object) -> int:
    """Milliseconds of a duration such as "250ms", "30s", "5m", "1h" or "7d".

    >>> parse_duration("5m")
    300000
    """
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            'not a duration: a whole number and a unit, such as "250ms", "30s", "5m", "1h", "7d"'
        )
    if len(match[1]) > 15 or int(match[1]) * _UNIT_MS[match[2]] > MAX_DURATION_MS:
        raise ValueError("longer than 36500d, a hundred years")
    return int(match[1]) * _UNIT_MS[match[2]]


def _positive(value: object) -> int:
    ms = parse_duration(value)
    if ms == 0:
        raise ValueError("must be longer than nothing")
    return ms


def _instant(value: object) -> int:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if not isinstance(value, datetime):
        raise ValueError('not an instant, such as "2018-04-01T00:00:00Z"')
    moment = value if value.tzinfo else value.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000)


Duration = Annotated[int, BeforeValidator(parse_duration)]
PositiveDuration = Annotated[int, BeforeValidator(_positive)]
Instant = Annotated[int, BeforeValidator(_instant)]
ClassName = str | int | bool


class Table(BaseModel):
    """A table of pipeline.toml: frozen, no unknown keys, no guessed types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=False)
