"""The state machine of all versions of one model: what it is told goes in, decisions come out.

candidate → validated → (awaiting) → shadow → canary → champion → retired | rejected | rolled_back

Every decision becomes an entry, which changes the state at once and is handed out by `take`. A restart folds the
entries again instead of deciding again. The rules stand in docs/promotion.md.
"""

from services.controller.core.book import Book, Rules
from services.controller.core.commands import Declined, obey
from services.controller.core.facts import Facts
from services.controller.core.records import (
    GIVEN_UP,
    TRAIN,
    Cause,
    Command,
    Score,
    Word,
    by_itself,
)
from services.controller.core.state import BOOTSTRAP, DECLINED, OBEYED, Entry, State
from services.controller.core.succession import turned_away, watch
from services.controller.core.trial import advance
from shared.models.announcement import CHAMPION


class Controller:
    """Folds commands, figures and workers' words into decisions; `state` and `facts` are changed in place."""

    def __init__(self, rules: Rules, state: State | None = None, facts: Facts | None = None) -> None:
        self._book = Book(rules, state or State(), facts or Facts())

    @property
    def state(self) -> State:
        """Every version, as the entries left it."""
        return self._book.state

    @property
    def facts(self) -> Facts:
        """What is known of the world."""
        return self._book.facts

    @facts.setter
    def facts(self, facts: Facts) -> None:
        self._book.facts = facts

    def take(self) -> list[Entry]:
        """The decisions since the last call, in order."""
        return self._book.take()

    def bootstrap(self, artefact: str, at: int) -> None:
        """Let the artefact of that digest, which knows nothing, serve where no version does."""
        if self.state.champion is None:
            number = self.state.next_version
            self._book.move(number, CHAMPION, BOOTSTRAP, by_itself(at), artefact=artefact)

    def score(self, score: Score) -> None:
        """Take in a figure: a champion may fall by it, a version on trial may pass."""
        self.facts.score(score)
        if score.counts:
            cause = by_itself(score.at)
            watch(self._book, score, cause)
            advance(self._book, cause)

    def word(self, word: Word) -> None:
        """Take in a worker's word: what it accepts may go on, what it refuses or gave up may not."""
        self.facts.word(word)
        cause = by_itself(word.at)
        known = self.state.versions.get(word.version)
        if known is not None and known.digest == word.digest and word.kind in GIVEN_UP:
            turned_away(self._book, known, word, cause)
        advance(self._book, cause)

    def command(self, command: Command) -> bool:
        """Obey a command or say why not; False where one of this id was heard before."""
        if not self.facts.command(command) or self._proposed(command.id):
            return False
        if command.kind == TRAIN:
            return True  # the retrainer's to obey, and to answer
        book, cause = self._book, Cause(command.actor, command.at, command.offset, command.id)
        try:
            reason, number = obey(book, command, cause)
        except Declined as refusal:
            book.note(DECLINED, command.model_version, refusal.reason, cause, text=str(refusal))
            return True
        book.note(OBEYED, number, reason, cause, asked=command.kind, text=command.reason)
        advance(book, by_itself(command.at))
        return True

    def _proposed(self, identity: str) -> bool:
        return any(version.command_id == identity for version in self.state.versions.values())
