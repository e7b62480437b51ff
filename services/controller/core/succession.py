"""Champions come and go: never two, and one that fails gives way to the one before."""

from typing import Any

from services.controller.core.book import Book
from services.controller.core.gate import better_by
from services.controller.core.records import Cause, Score, Word
from services.controller.core.state import IN_FLIGHT, INCIDENT, Version
from shared.contracts.policies import RollbackPolicy
from shared.models.announcement import (
    CANARY,
    CHAMPION,
    REJECTED,
    RELEASE,
    RETIRED,
    ROLLBACK,
    ROLLED_BACK,
    SHADOW,
)

LEAST_ROWS = 100
"""A figure over fewer rows undoes nothing: by chance it is far off too often."""
# A worker's refusals that speak of the announcement or of the order of things, not of the model.
_OF_THE_ORDER = ("superseded", "version.")
_NOT_THE_MODEL = (*_OF_THE_ORDER, "signature.", "announcement.", "tombstone.", "location.")


def crown(
    book: Book, version: Version, reason: str, cause: Cause, fate: str = RETIRED, **detail: Any
) -> None:
    """The old champion goes and the new one comes, in this order; what the old one judged falls.

    What a person has approved stays.
    """
    before, rules = book.state.champion, book.rules
    kind = RELEASE
    if before is not None:
        if version.crowned or version.number < before.number:
            kind = ROLLBACK
        detail |= {"predecessor": before.number, "baseline": _baseline(book, before)}
        book.move(before.number, fate, "replaced" if fate == RETIRED else reason, cause)
    book.move(
        version.number,
        CHAMPION,
        reason,
        cause,
        announced=kind,
        entered=book.facts.total(version.number, CHAMPION),
        watched=kind == RELEASE and before is not None and rules.rollback is not None,
        **detail,
    )
    for other in book.state.in_state(*IN_FLIGHT):
        if not other.approved:
            book.move(other.number, REJECTED, "champion.changed", cause)


def _baseline(book: Book, champion: Version) -> float | None:
    if book.rules.rollback is None:
        return None
    known = book.facts.figure(champion.number, CHAMPION, book.rules.rollback.metric)
    return None if known is None else known.value


def predecessor(book: Book) -> Version | None:
    """The newest champion before the present one that was not itself given up."""
    champion = book.state.champion
    number = None if champion is None else champion.predecessor
    while number is not None:
        found = book.state.versions[number]
        if found.state == RETIRED:
            return found
        number = found.predecessor
    return None


def give_up(book: Book, champion: Version, reason: str, cause: Cause, **detail: Any) -> None:
    """The champion before serves again; where there is none the champion stays, and an incident says so."""
    target = predecessor(book)
    if target is None:
        text = "the champion should go, but no version served before it"
        book.note(INCIDENT, champion.number, reason, cause, text=text, **detail)
    else:
        crown(book, target, reason, cause, fate=ROLLED_BACK, **detail)


def watch(book: Book, score: Score, cause: Cause) -> None:
    """The declared rule of quality, on a figure of the champion; errors and latency are what workers watch."""
    champion, rollback = book.state.champion, book.rules.rollback
    if champion is None or rollback is None or score.version != champion.number or score.role != CHAMPION:
        return
    if not champion.watched or score.total - champion.entered > rollback.window_labels:
        return
    if _is_worse(champion, score, rollback):
        found = {"metric": score.metric, "value": score.value, "rows": score.rows, "total": score.total}
        compared = found | {"baseline": champion.baseline}
        give_up(book, champion, "rollback.quality", cause, compared=compared)


def _is_worse(champion: Version, score: Score, rollback: RollbackPolicy) -> bool:
    if score.metric != rollback.metric or champion.baseline is None:
        return False
    enough = score.rows >= min(LEAST_ROWS, rollback.window_labels)
    return enough and better_by(score.metric, score.value, champion.baseline) < -rollback.worse_by


def turned_away(book: Book, version: Version, word: Word, cause: Cause) -> None:
    """A worker will not have this version, or has given it up."""
    said = {"worker": word.actor, "said": word.detail[:500]}
    reason = word.reason[:100] or word.kind
    blames_model = not word.reason.startswith(_NOT_THE_MODEL)
    if version.state == CHAMPION:
        if blames_model:
            give_up(book, version, reason, cause, **said)
    elif version.state == CANARY and blames_model:
        book.move(version.number, ROLLED_BACK, reason, cause, **said)
    elif version.state == SHADOW and not word.reason.startswith(_OF_THE_ORDER):
        book.move(version.number, REJECTED, reason, cause, **said)
