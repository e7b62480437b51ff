"""What the controller is told, one value a record, and what made it decide."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

PROPOSE, TRAIN, APPROVE, REJECT = "propose", "train", "approve", "reject"
PROMOTE, ROLL_BACK, FREEZE, UNFREEZE = "promote", "rollback", "freeze", "unfreeze"
KINDS = frozenset({PROPOSE, TRAIN, APPROVE, REJECT, PROMOTE, ROLL_BACK, FREEZE, UNFREEZE})
ACCEPTED, REFUSED = "model.accepted", "model.rejected"
FELL_BACK, FAILING = "model.rolled_back", "model.failing"
GIVEN_UP = frozenset({REFUSED, FELL_BACK, FAILING})
"""A worker will not load it, has gone back to another one, or goes on with it only for want of another."""
ALL_ROWS, ROLLING, PROVISIONAL = "all", "rolling", "provisional"
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_MOST_TEXT = 200
_MOST_PARAMETERS = 65_536
_MOST_LEVELS = 100


@dataclass(frozen=True, slots=True)
class Command:
    """One record of commands.v1 at `offset`; `at` is its Kafka timestamp in milliseconds."""

    id: str
    kind: str
    model_name: str
    model_version: int = -1
    model_digest: str = ""
    expected_sequence: int = -1
    actor: str = ""
    reason: str = ""
    evidence: bytes = b""
    parameters: dict[str, Any] = field(default_factory=dict)
    offset: int = -1
    at: int = 0


def problem_of(command: Command, parameters: str) -> tuple[str, str] | None:
    """Why a decoded command cannot be obeyed by anybody, as a reason and a text; None where it can.

    >>> problem_of(Command(id="1", kind="explode", model_name="m"), "{}")[0]
    'command.unknown'
    """
    if command.kind not in KINDS:
        return "command.unknown", f"no command is called {command.kind[:50]!r}"
    if not 0 < len(command.id) <= _MOST_TEXT:
        return "command.invalid", f"an id has 1 to {_MOST_TEXT} characters, this one {len(command.id)}"
    if len(command.actor) > _MOST_TEXT or len(command.reason) > 10 * _MOST_TEXT:
        return "command.invalid", "actor or reason is too long"
    if command.kind == PROPOSE and not _SHA256.match(command.model_digest):
        return "command.invalid", "a proposal names the sha256 of a manifest, 64 hex digits"
    if parameters_of(parameters) is None:
        return "command.invalid", "parameters are no JSON object"
    return None


def parameters_of(text: str) -> dict[str, Any] | None:
    """The command's further terms; None for anything but a JSON object of bounded size and depth."""
    found = object_of(text) if len(text) <= _MOST_PARAMETERS else None
    return None if found is None or _is_deep(found) else found


def object_of(text: str) -> dict[str, Any] | None:
    """A JSON object of any size, as the controller's own records hold one; None for anything else."""
    try:
        found = json.loads(text or "{}")
        json.dumps(found, allow_nan=False)  # what is written down again must be JSON for everybody
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_deep(found: Any) -> bool:
    """Whether lists and objects stand in each other so often that another reader could run out of stack."""
    level = [found]
    for _ in range(_MOST_LEVELS):
        level = [child for each in level for child in _children(each)]
    return bool(level)


def _children(found: Any) -> Iterable[Any]:
    if isinstance(found, dict):
        return found.values()
    return found if isinstance(found, list) else ()


@dataclass(frozen=True, slots=True)
class Score:
    """One record of scores.v1; `at` is its Kafka timestamp in milliseconds."""

    sequence: int
    order_time: int
    version: int
    role: str
    slice: str
    metric: str
    value: float
    rows: int
    total: int
    window: str
    state: str
    at: int = 0

    @property
    def counts(self) -> bool:
        """Whether decisions look at it: over all rows, the newest window of the ledger, and a number.

        Figures of what has settled lag a horizon behind, and their `total` counts the settled outcomes alone.
        """
        newest = self.window == ROLLING and self.state == PROVISIONAL
        return newest and self.slice == ALL_ROWS and math.isfinite(self.value)

    @property
    def rank(self) -> tuple[int, int, str, str, str]:
        """The order in which gathered figures are folded."""
        return (self.sequence, self.version, self.role, self.slice, self.metric)


@dataclass(frozen=True, slots=True)
class Word:
    """What a worker said of a model version on audit.v1; `at` is the record's Kafka timestamp."""

    kind: str
    version: int
    digest: str
    actor: str
    reason: str
    detail: str = ""
    at: int = 0


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something is decided: who, when (milliseconds), and by which command, if by one."""

    actor: str
    at: int
    command_offset: int = -1
    command_id: str = ""
    evidence: str = ""


CONTROLLER = "controller"


def by_itself(at: int) -> Cause:
    """The controller's own rules, set off by a record of that time."""
    return Cause(CONTROLLER, at)
