"""The demo's second part: a world that changes at a known event, and what the loop makes of it, in events.

Loan applications are declared from their file as anybody would declare it, sent through all services, and the
circle is told: change, alarm, retraining, promotion, recovery. In lockstep a seed gives the same figures on any
machine; live, events go on while a model is trained, and the figures tell how fast the machine was.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.cli.changing import Change, applications
from services.cli.from_csv import Wish, files_from
from services.cli.replay import watching
from shared.settings import home

if TYPE_CHECKING:
    from services.cli.chronicle import Chronicle
    from services.cli.journey import Journey
    from services.cli.script import Script
    from services.cli.story import Mark

STEP = 250
"""Events a step in lockstep."""
LEVEL = 1_000
"""The level before the change is the accuracy of so many events."""
TRAILING = 250
NEAR = 0.05
"""Recovered: the accuracy of the last TRAILING outcomes is at most so much below that level."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Circle:
    """Events since the change until each thing happened, None where it never did.

    `excess` is how many more answers were wrong since the change than the level before would have been.
    """

    change: int
    before: float
    alarm: int | None
    detector: str
    retrained: int | None
    promoted: int | None
    version: int | None
    recovered: int | None
    after: float | None
    excess: int

    @property
    def missing(self) -> list[str]:
        """What did not happen."""
        told = {
            "no alarm": self.alarm,
            "no retraining": self.retrained,
            "no promotion": self.promoted,
            "no recovery": self.recovered,
        }
        return [word for word, found in told.items() if found is None]


def declare(name: str, change: Change) -> tuple[Path, Path]:
    """Write the stream's file and its declaration, as `millrace init --from` does; the folder and the file."""
    folder, file = home() / "declared" / name, home() / "demo" / f"{name}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    applications(change).write_csv(file)
    folder.mkdir(parents=True)
    for each, text in files_from(Wish(name, file, "repaid", time="second", key="customer")).items():
        (folder / each).write_text(text, encoding="utf-8")
    return folder, file


def run_change(name: str, change: Change, pace: float | None, plot: Path, say: Say) -> dict[str, Any]:
    """Send the stream, in lockstep or at `pace` events a second; the circle as JSON, and the picture in `plot`."""
    from services.cli.chronicle import read_chronicle
    from services.cli.drawing import draw
    from services.cli.journey import Journey
    from services.cli.script import labels_after_ms, read_rows, write_script

    folder, file = declare(name, change)
    journey = Journey(folder, services="loop")
    declared = journey.pipeline
    script = write_script(read_rows(file, declared), declared, labels_after_ms(declared))
    with journey:
        say(f"applications: {change.events} events, the world changes at event {change.at}")
        _send(journey, script, pace)
    chronicle = read_chronicle(journey.platform, declared, journey.schema_ids, TRAILING)
    plot.parent.mkdir(parents=True, exist_ok=True)
    draw(chronicle.story(), plot, change.at)
    circle = circle_of(chronicle, change.at)
    return {"pipeline": name, "events": change.events, "lockstep": pace is None, **asdict(circle)} | {
        "missing": circle.missing,
        "plot": str(plot),
    }


def _send(journey: "Journey", script: "Script", pace: float | None) -> None:
    from services.cli.journey import FIRST_S
    from services.cli.lockstep import Lockstep, services_of
    from services.cli.replaying import Pace

    check = journey.supervisor.check
    with watching("applications") as watch:
        if pace is None:
            journey.replay_in_steps(script, STEP, watch=watch)
            return
        kafka, declared, ids = journey.platform.kafka, journey.pipeline, journey.schema_ids
        services = services_of(declared)
        # Not in lockstep: only its word is wanted that all services run, and that at the end they rest.
        with Lockstep.of(kafka, declared, ids, script, STEP, services, start_s=FIRST_S, beat=check) as steps:
            steps.rest_over(check)
            journey.replay(script, Pace(rate=pace), watch)
            steps.rest_over(check)


def circle_of(chronicle: "Chronicle", change: int) -> Circle:
    """What is told of the change at event `change`."""
    telling, marks = chronicle.telling, chronicle.story().marks
    end = len(telling.answers)
    level = telling.figure("accuracy", max(0, change - LEVEL), change) or 0.0
    alarm = next((m for m in marks if m.what == "alarm" and m.detail["triggers"] and _at(m) > change), None)
    training = next((m for m in marks if _taught(m) and _at(m) >= (_at(alarm) if alarm else end)), None)
    promotion = None if training is None else _promotion(marks, training)
    recovered = next(
        (
            at
            for at in range(change + TRAILING, end + 1)
            if (telling.figure("accuracy", at - TRAILING, at) or 0.0) >= level - NEAR
        ),
        None,
    )
    known = int((telling.known >= change).sum())
    since = telling.figure("accuracy", change, end)
    return Circle(
        change=change,
        before=round(level, 4),
        alarm=None if alarm is None else _at(alarm) - change,
        detector="" if alarm is None else alarm.detail["detector"],
        retrained=None if training is None else _at(training) - change,
        promoted=None if promotion is None else _at(promotion) - change,
        version=None if promotion is None else promotion.version,
        recovered=None if recovered is None else recovered - change,
        after=telling.figure("accuracy", end - TRAILING, end),
        excess=0 if since is None else round((level - since) * known),
    )


def _at(mark: "Mark") -> int:
    return -1 if mark.index is None else mark.index


def _taught(mark: "Mark") -> bool:
    return mark.what == "training" and mark.detail["step"] == "done"


def _promotion(marks: "list[Mark] | Any", training: "Mark") -> "Mark | None":
    """The first version that came into force of those that were trained then or later."""
    digests = {m.detail["digest"] for m in marks if _taught(m) and _at(m) >= _at(training)}
    crowned = (m for m in marks if m.what == "promotion" and m.index is not None)
    return next((m for m in crowned if m.detail["digest"] in digests), None)


def change_lines(told: dict[str, Any]) -> list[str]:
    """The circle for people."""
    how = "in lockstep" if told["lockstep"] else "live"
    return [
        f"change        at event {told['change']} of {told['events']}, {how}; accuracy before it {told['before']}",
        f"alarm         {_after(told['alarm'])}, by {told['detector'] or 'nobody'}",
        f"retrained     {_after(told['retrained'])}",
        f"promoted      {_after(told['promoted'])}, version {told['version'] or 'none'}",
        f"recovered     {_after(told['recovered'])}: accuracy of {TRAILING} events within {NEAR} of that before",
        f"excess errors {told['excess']}, beyond those that the accuracy before would have left",
        f"plot          {told['plot']}",
    ]


def _after(events: int | None) -> str:
    return "never" if events is None else f"after {events} events"
