"""Every error that Millrace raises, by what the caller must do.

MillraceError
├── Retry                   the same call may succeed later: a broker, registry or Redis that is away
├── BadRecord               one record is wrong: it goes to the dead letters with `reason`, the rest goes on
├── Refused                 turned away at the door: nothing was written, the caller must change its request
│   └── DeclarationError    a declaration or schema is wrong; `problems` say where and what to write instead
└── Fatal                   going on would lose or double something: the process ends
    ├── Fenced              another worker has taken this slot
    └── FuseBlown           too many bad records in a row: the code is wrong, not the data
"""

from collections.abc import Sequence
from dataclasses import dataclass


class MillraceError(Exception):
    """The root; never raised itself."""


class Retry(MillraceError):
    """The same call may succeed later."""


class BadRecord(MillraceError):
    """One record cannot be processed; `reason` is its bounded code, such as `avro.eof`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class Refused(MillraceError):
    """Turned away at the door; nothing was written."""


class Fatal(MillraceError):
    """Going on would lose or double something; the process ends."""


class Fenced(Fatal):
    """Another worker holds this slot's transactional id."""


class FuseBlown(Fatal):
    """Too many bad records in a row."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a declaration: where it stands, what is wrong, and what to write instead."""

    file: str
    line: int
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}; {self.fix}"


class DeclarationError(Refused):
    """A declaration or schema is wrong; every problem found is listed."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)
