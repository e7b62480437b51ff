"""The story beside its figures: alarms, trainings and decisions among the events, each version by itself. Pure."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from services.cli.story import Answers, Mark, Record, Reign, Story, Telling
from shared.errors import Refused

_MOVED = "model.transition"


def tell(
    pipeline: str,
    telling: Telling,
    alarms: Sequence[Record],
    runs: Sequence[Record],
    audit: Sequence[Record],
    begin: int = 0,
    end: int | None = None,
) -> Story:
    """The story of events `begin` to `end`; alarms, runs and audit as their topics hold them, in offset order.

    Raises:
        Refused: there is no such event.
    """
    total = len(telling.answers)
    last = total if end is None else min(end, total)
    if begin >= last:
        raise Refused(
            f"there is no event from {begin} to {last}: {pipeline} has {total}, from 0 to {total - 1};"
            " correct --from or --to"
        )
    marks = [*_alarms(telling, alarms), *_runs(telling, runs), *_decisions(telling, audit)]
    marks = [
        _with_figure(telling, mark) for mark in marks if mark.index is None or begin <= mark.index <= last
    ]
    known = telling.known[(telling.known >= begin) & (telling.known < last)]
    return Story(
        pipeline=pipeline,
        events=last - begin,
        labelled=int(known.size),
        metric=telling.metric,
        window=telling.window,
        figures=telling.figures(known),
        marks=sorted(marks, key=lambda mark: (total if mark.index is None else mark.index, mark.sequence)),
        reigns=_reigns(telling, runs, audit, begin, last),
        trail=telling.trail(begin, last),
        first=begin,
        last=last,
    )


def _with_figure(telling: Telling, mark: Mark) -> Mark:
    figure = None if mark.index is None else telling.trailing(mark.index)
    return Mark(mark.what, mark.index, mark.sequence, mark.version, mark.text, mark.detail, figure)


def _alarms(telling: Telling, alarms: Sequence[Record]) -> list[Mark]:
    return [
        Mark(
            what="alarm",
            index=telling.index_at(each["order_time"]),
            sequence=each["sequence"],
            version=None,
            text=f"{each['detector']} on {each['subject']}" + (", retrains" if each["triggers"] else ""),
            detail={
                "id": each["id"],
                "family": each["family"],
                "detector": each["detector"],
                "subject": each["subject"],
                "since_index": telling.index_of(each["since_sequence"]),
                "magnitude": each["magnitude"],
                "threshold": each["threshold"],
                "triggers": each["triggers"],
                "said": each["detail"],
            },
        )
        for each in alarms
    ]


_STEPS = {"trigger": "trigger", "done": "training", "failed": "training", "skipped": "training"}


def _runs(telling: Telling, runs: Sequence[Record]) -> list[Mark]:
    """The trigger and the end of each run; a run may say one of them again after a kill."""
    told: dict[tuple[str, str], Mark] = {}
    for each in runs:
        what = _STEPS.get(each["step"])
        if what is None:
            continue
        detail = parsed(each["detail"])
        text = each["id"] if what == "trigger" else f"{each['id']} {each['step']}{_why(detail)}"
        mark = Mark(
            what=what,
            index=telling.index_of(each["sequence"]),
            sequence=each["sequence"],
            version=None,
            text=text,
            detail={"id": each["id"], "step": each["step"], **detail},
        )
        told.setdefault((each["id"], each["step"]), mark)
    return list(told.values())


def _why(detail: Record) -> str:
    words = [str(detail[name]) for name in ("kind", "window", "reason") if detail.get(name)]
    return f": {' '.join(words)}" if words else ""


def _decisions(telling: Telling, audit: Sequence[Record]) -> list[Mark]:
    """What the controller decided; a version that came into force stands at the first event it answered."""
    marks = []
    times: Counter[tuple[int, str]] = Counter()
    for each in audit:
        if not each["state"] or each["kind"] != _MOVED:
            if each["kind"].startswith(("command.", "model.incident", "model.rolled_back")):
                marks.append(_word(telling, each))
            continue
        version, state = each["model_version"], each["state"]
        index = telling.index_of(each["labeled_sequence"])
        if state in ("champion", "canary"):
            index = _in_force(telling.answers, version, state == "champion", times[version, state])
            times[version, state] += 1
        detail = parsed(each["detail"])
        marks.append(
            Mark(
                what=_what(each["previous"], state),
                index=index if index is not None or state in ("champion", "canary") else 0,
                sequence=each["labeled_sequence"],
                version=version,
                text=f"version {version} {each['previous'] or 'new'} → {state}: {each['reason']}",
                detail={
                    "previous": each["previous"],
                    "state": state,
                    "reason": each["reason"],
                    "actor": each["actor"],
                    "digest": each["model_digest"],
                    "evidence": each["evidence"],
                    **detail,
                },
            )
        )
    return marks


def _word(telling: Telling, each: Record) -> Mark:
    return Mark(
        what=each["kind"].partition(".")[0] if each["kind"] != "model.rolled_back" else "rollback",
        index=telling.index_of(each["labeled_sequence"]),
        sequence=each["labeled_sequence"],
        version=each["model_version"] if each["model_version"] > 0 else None,
        text=f"{each['kind']}: {each['reason']}",
        detail={"kind": each["kind"], "reason": each["reason"], "actor": each["actor"]},
    )


def _what(previous: str, state: str) -> str:
    if state == "champion":
        return "promotion"
    if previous == "candidate" and state in ("validated", "rejected"):
        return "verdict"
    return "rollback" if state == "rolled_back" else "transition"


def _in_force(answers: Answers, version: int, champion: bool, again: int) -> int | None:
    """The first event answered by a version in a role, the `again`-th time that it took that role."""
    rows = np.flatnonzero((answers.version == version) & (answers.champion == champion))
    offsets, firsts = np.unique(answers.registry_offset[rows], return_index=True)
    return int(rows[firsts[again]]) if again < offsets.size else None


def _reigns(
    telling: Telling, runs: Sequence[Record], audit: Sequence[Record], begin: int, end: int
) -> list[Reign]:
    made = {detail["digest"]: detail for each in runs if (detail := parsed(each["detail"])).get("digest")}
    states: dict[int, tuple[str, str]] = {}
    for each in audit:
        if each["kind"] == _MOVED and each["state"]:
            states[each["model_version"]] = (each["model_digest"], each["state"])
    answered = np.unique(telling.answers.version[begin:end]).tolist()
    reigns = []
    for version in sorted({*answered, *states}):
        rows = begin + np.flatnonzero(telling.answers.version[begin:end] == version)
        known = rows[telling.truth[rows] >= 0]
        digest, state = states.get(version, ("", ""))
        kind = str(made.get(digest, {}).get("kind", ""))
        reigns.append(
            Reign(
                version=version,
                digest=digest,
                kind=kind,
                state=state,
                first=int(rows[0]) if rows.size else None,
                events=int(rows.size),
                labelled=int(known.size),
                figures=telling.figures(known),
            )
        )
    return reigns


def parsed(text: str) -> dict[str, Any]:
    """A detail field as a value; what is no JSON object stands as its text."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"text": text}
