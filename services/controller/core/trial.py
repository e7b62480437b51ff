"""From the gate to all of the traffic: waiting, shadow, canary; one version on trial at a time."""

from typing import Any

from services.controller.core.book import Book
from services.controller.core.gate import better_by
from services.controller.core.records import Cause
from services.controller.core.state import ON_TRIAL, Version
from services.controller.core.succession import crown
from shared.models.announcement import (
    AWAITING,
    CANARY,
    CHAMPION,
    REJECTED,
    ROLLED_BACK,
    SHADOW,
    VALIDATED,
)


def enter(book: Book, version: Version, cause: Cause) -> None:
    """What passed the gate waits for a person, or for its turn on trial."""
    if book.rules.promotion.approval:
        _supersede(book, book.state.in_state(AWAITING), cause)
        book.move(version.number, AWAITING, "approval.needed", cause)
        return
    _supersede(book, [v for v in book.state.in_state(VALIDATED) if v is not version], cause)
    # One that no worker has accepted holds up nobody: it may never be.
    _supersede(book, [v for v in book.state.in_state(SHADOW) if not _accepted(book, v)], cause)
    if not book.state.frozen and not book.state.in_state(*ON_TRIAL):
        begin(book, version, "gate.passed", cause)


def begin(book: Book, version: Version, reason: str, cause: Cause, **detail: Any) -> None:
    """Put the version beside the champion; whoever was on trial makes way."""
    _supersede(book, book.state.in_state(*ON_TRIAL), cause)
    entered = book.facts.total(version.number, SHADOW)
    book.move(version.number, SHADOW, reason, cause, entered=entered, **detail)


def _supersede(book: Book, others: list[Version], cause: Cause) -> None:
    for other in others:
        book.move(other.number, REJECTED, "superseded", cause)


def advance(book: Book, cause: Cause) -> None:
    """Let versions go as far as they may; ends because every step ends a stage or begins the only trial."""
    while not book.state.frozen and _step(book, cause):
        pass


def _step(book: Book, cause: Cause) -> bool:
    on_trial = book.state.in_state(*ON_TRIAL)
    if on_trial:
        return _pass_on(book, on_trial[0], cause)
    waiting = [] if book.rules.promotion.approval else book.state.in_state(VALIDATED)
    if waiting:
        begin(book, waiting[-1], "gate.passed", cause)
    return bool(waiting)


def _pass_on(book: Book, version: Version, cause: Cause) -> bool:
    """End a stage that is over; False while it is not."""
    role, promotion = version.state, book.rules.promotion
    wanted = promotion.shadow_labels if role == SHADOW else promotion.canary_labels
    seen = book.facts.total(version.number, role) - version.entered
    if not _accepted(book, version) or seen < wanted:
        return False
    compared = _compared(book, version, role) if wanted else {}
    worse = compared.get("better_by")
    if worse is not None and worse < -book.rules.gate.slice_tolerance:
        fate = REJECTED if role == SHADOW else ROLLED_BACK
        book.move(version.number, fate, f"{role}.worse", cause, compared=compared)
    elif role == SHADOW and promotion.canary_labels:
        begun: dict[str, Any] = {
            "share": promotion.canary_share,
            "entered": book.facts.total(version.number, CANARY),
        }
        book.move(version.number, CANARY, "shadow.passed", cause, compared=compared, **begun)
    else:
        crown(book, version, f"{role}.passed", cause, compared=compared)
    return True


def _compared(book: Book, version: Version, role: str) -> dict[str, Any]:
    """The newest figures of the version and of the champion; `better_by` only where both are known."""
    metric, champion = book.rules.gate.metric, book.state.champion
    mine = book.facts.figure(version.number, role, metric)
    theirs = None if champion is None else book.facts.figure(champion.number, CHAMPION, metric)
    found: dict[str, Any] = {"metric": metric}
    if mine is not None:
        found |= {"value": mine.value, "rows": mine.rows}
    if theirs is not None:
        found |= {"champion": theirs.value, "champion_rows": theirs.rows}
    if mine is not None and theirs is not None:
        found["better_by"] = better_by(metric, mine.value, theirs.value)
    return found


def _accepted(book: Book, version: Version) -> bool:
    return (version.number, version.digest) in book.facts.accepted
