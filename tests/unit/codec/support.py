"""What the codec's tests share."""

from typing import Any

from shared.codec.batch import Strings
from shared.codec.ops import STATUS_REASONS
from shared.codec.program import Program


def record(**fields: Any) -> dict[str, Any]:
    """A record schema with these fields; a pair is a type and its default."""
    made = []
    for name, kind in fields.items():
        if isinstance(kind, tuple):
            made.append({"name": name, "type": kind[0], "default": kind[1]})
        else:
            made.append({"name": name, "type": kind})
    return {"type": "record", "name": "R", "fields": made}


def reasons(program: Program, data: list[bytes]) -> list[str]:
    """What each datum's status says."""
    return [STATUS_REASONS[status] for status in program.decode(Strings.of(data)).status.tolist()]
