"""Commands, each obeyed or declined with a reason that the one who asked can use."""

import json
from typing import Any

from services.controller.core.book import Book
from services.controller.core.gate import Verdict, judge
from services.controller.core.records import (
    APPROVE,
    FREEZE,
    PROMOTE,
    PROPOSE,
    REJECT,
    ROLL_BACK,
    UNFREEZE,
    Cause,
    Command,
)
from services.controller.core.state import BOOTSTRAP, FROZEN, IN_FLIGHT, THAWED, Version
from services.controller.core.succession import crown, predecessor
from services.controller.core.trial import begin, enter
from shared.errors import Refused
from shared.models.announcement import (
    AWAITING,
    CANARY,
    CANDIDATE,
    CHAMPION,
    REJECTED,
    ROLLED_BACK,
    VALIDATED,
)
from shared.models.evidence import Evidence, digest, unpack

MOST_TERMS = 262_144
"""Characters of a proposal's parameters as they are recorded: in ASCII, where one may become twelve."""


class Declined(Exception):
    """A command that is not obeyed: a bounded reason, and what a person should know."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def obey(book: Book, command: Command, cause: Cause) -> tuple[str, int]:
    """Do what is asked; gives a reason for the audit and the version concerned. Declined where it cannot be."""
    _expected(book, command)
    if command.kind == PROPOSE:
        return _propose(book, command, cause)
    if command.kind in (FREEZE, UNFREEZE):
        return _freeze(book, command.kind == FREEZE), -1
    if command.kind == ROLL_BACK:
        return "rollback.done", _roll_back(book, command, cause)
    version = _meant(book, command)
    {APPROVE: _approve, REJECT: _reject, PROMOTE: _promote}[command.kind](book, version, cause)
    return f"{command.kind}.done", version.number


def _expected(book: Book, command: Command) -> None:
    if command.model_name != book.rules.model:
        raise Declined("model.unknown", f"this pipeline's model is {book.rules.model}")
    expected, now = command.expected_sequence, book.state.sequence
    if expected not in (-1, now):
        raise Declined(
            "sequence.changed",
            f"announcement {expected} was the newest when this was asked, now it is {now}: "
            f"{book.state.newest}; look again and repeat the command",
        )


def _meant(book: Book, command: Command) -> Version:
    """The version that the command names, or the only one that it can mean."""
    if command.model_version >= 0:
        return _known(book, command.model_version)
    states = (AWAITING,) if command.kind == APPROVE else tuple(sorted(IN_FLIGHT))
    found = book.state.in_state(*states)
    if len(found) != 1:
        raise Declined("version.unnamed", f"{len(found)} versions could be meant; name one")
    return found[0]


def _known(book: Book, number: int) -> Version:
    found = book.state.versions.get(number)
    if found is None:
        raise Declined("version.unknown", f"there is no version {number}; `millrace models list` shows all")
    return found


def _freeze(book: Book, freeze: bool) -> str:
    if book.state.frozen == freeze:
        raise Declined("freeze.same", f"promotions are {'already' if freeze else 'not'} frozen")
    return FROZEN if freeze else THAWED


def _propose(book: Book, command: Command, cause: Cause) -> tuple[str, int]:
    evidence = _evidence(book, command)
    cause = Cause(cause.actor, cause.at, cause.command_offset, cause.command_id, digest(command.evidence))
    _bounded(command)
    number = book.state.next_version
    terms = {"proposal": command.id, "parameters": command.parameters}
    book.move(number, CANDIDATE, "proposed", cause, artefact=command.model_digest, **terms)
    verdict = judge(evidence, book.rules.gate, command.id, command.parameters)
    verdict = _of_this_champion(book, command, verdict)
    state = VALIDATED if verdict.passed else REJECTED
    book.move(number, state, verdict.reason, cause, figures=verdict.figures)
    if verdict.passed:
        enter(book, book.state.versions[number], cause)
    return verdict.reason, number


def _bounded(command: Command) -> None:
    size = len(json.dumps(command.parameters))
    if size > MOST_TERMS:
        raise Declined("proposal.size", f"{size} characters of parameters, at most {MOST_TERMS} are recorded")


def _evidence(book: Book, command: Command) -> Evidence:
    try:
        evidence = unpack(command.evidence)
    except Refused as error:
        raise Declined("evidence.invalid", str(error)) from error
    if evidence.classes != book.rules.classes:
        raise Declined(
            "evidence.classes", f"evidence of {evidence.classes} classes, declared are {book.rules.classes}"
        )
    return evidence


def _of_this_champion(book: Book, command: Command, verdict: Verdict) -> Verdict:
    """The gate's verdict, unless the evidence does not compare with the champion that serves."""
    champion = book.state.champion
    if champion is None:
        return verdict
    other = _other(command.parameters.get("champion"), champion)
    if other:
        return Verdict(False, "gate.champion_changed", {**verdict.figures, **other})
    problem = command.parameters.get("champion_problem")
    if problem and champion.reason != BOOTSTRAP:
        return Verdict(False, "gate.champion_unknown", {**verdict.figures, "problem": str(problem)[:500]})
    return verdict


def _other(said: Any, champion: Version) -> dict[str, Any]:
    """Number and artefact that the evidence names, where either is not the champion's; empty where both are."""
    serving = {"version": champion.number, "digest": champion.digest}
    found = {name: said.get(name) for name in serving} if isinstance(said, dict) else {}
    if all(each in (None, serving[name]) for name, each in found.items()):
        return {}
    return {f"champion_{name}": each for name, each in found.items()}


def _thawed(book: Book) -> None:
    if book.state.frozen:
        raise Declined("controller.frozen", "promotions are frozen; unfreeze first")


def _approve(book: Book, version: Version, cause: Cause) -> None:
    if version.state != AWAITING:
        raise Declined("state.wrong", f"version {version.number} is {version.state}, not awaiting approval")
    _thawed(book)
    begin(book, version, "approved", cause, approved=True)


def _reject(book: Book, version: Version, cause: Cause) -> None:
    if version.state not in IN_FLIGHT:
        hint = "; roll it back instead" if version.state == CHAMPION else ""
        raise Declined("state.wrong", f"version {version.number} is {version.state}{hint}")
    book.move(version.number, ROLLED_BACK if version.state == CANARY else REJECTED, "by_hand", cause)


def _promote(book: Book, version: Version, cause: Cause) -> None:
    if version.state not in IN_FLIGHT:
        hint = "; `rollback` brings a former champion back" if version.crowned else ""
        raise Declined("state.wrong", f"version {version.number} is {version.state}{hint}")
    _thawed(book)
    crown(book, version, "by_hand", cause)


def _roll_back(book: Book, command: Command, cause: Cause) -> int:
    named = command.model_version >= 0
    target = _known(book, command.model_version) if named else predecessor(book)
    if target is None or book.state.champion is None:
        raise Declined("rollback.impossible", "no version served before this one")
    if target.state == CHAMPION or not target.crowned:
        raise Declined("state.wrong", f"version {target.number} is {target.state}, not a former champion")
    crown(book, target, "by_hand", cause, fate=ROLLED_BACK)
    return target.number
