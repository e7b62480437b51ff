"""What decisions are written into: the state, what is known, the rules, and the entries not yet handed out."""

from dataclasses import dataclass, field
from typing import Any

from services.controller.core.facts import Facts
from services.controller.core.records import Cause
from services.controller.core.state import TRANSITION, Entry, State
from shared.contracts.policies import GatePolicy, PromotionPolicy, RollbackPolicy
from shared.models.announcement import RELEASE


@dataclass(frozen=True, slots=True)
class Rules:
    """What the declaration says; `rollback` None means that no figure undoes a promotion."""

    model: str
    fingerprint: str
    classes: int = 2
    gate: GatePolicy = field(default_factory=GatePolicy.model_construct)
    promotion: PromotionPolicy = field(default_factory=PromotionPolicy.model_construct)
    rollback: RollbackPolicy | None = None


@dataclass(slots=True)
class Book:
    """Every entry changes the state at once; `take` hands out those that the log does not hold yet."""

    rules: Rules
    state: State = field(default_factory=State)
    facts: Facts = field(default_factory=Facts)
    entries: list[Entry] = field(default_factory=list)

    def take(self) -> list[Entry]:
        """The decisions since the last call, in order."""
        taken, self.entries = self.entries, []
        return taken

    def move(
        self, number: int, state: str, reason: str, cause: Cause, artefact: str = "", **detail: Any
    ) -> None:
        """A version's next state; `artefact` is the digest of a version that is new."""
        terms = {
            "sequence": self.state.sequence + 1,
            "announced": RELEASE,
            "share": 1.0,
            "order_time": self.facts.order_time,
            **detail,
        }
        before = self.state.versions.get(number)
        self._add(TRANSITION, number, before.state if before else "", state, reason, cause, terms, artefact)

    def note(self, kind: str, number: int, reason: str, cause: Cause, **detail: Any) -> None:
        """A decision that moves no version."""
        terms = {"order_time": self.facts.order_time, "newest": self.state.sequence, **detail}
        self._add(kind, number, "", "", reason, cause, terms, "")

    def _add(
        self,
        kind: str,
        number: int,
        previous: str,
        state: str,
        reason: str,
        cause: Cause,
        detail: dict[str, Any],
        artefact: str,
    ) -> None:
        known = self.state.versions.get(number)
        if cause.command_id:
            detail["command"] = cause.command_id
        entry = Entry(
            kind=kind,
            version=number,
            digest=artefact or (known.digest if known else ""),
            previous=previous,
            state=state,
            actor=cause.actor,
            reason=reason,
            at=cause.at,
            evidence=cause.evidence,
            labeled_sequence=self.facts.sequence,
            command_offset=cause.command_offset,
            detail=detail,
        )
        self.state.apply(entry)
        self.entries.append(entry)
