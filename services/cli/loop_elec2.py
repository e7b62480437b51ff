"""`millrace loop elec2`: the loop on the Australian electricity market, from a cold start, and without it.

Prices of 45,312 half hours, 1996 to 1998, in the file that stream learners are usually compared on (Harries,
1999; Gama, Medas, Castillo, Rodrigues, 2004). Each outcome comes 48 events late. Nobody touches anything:
the first answers are those of a model that has learnt nothing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.cli.variants import write_variant
from shared.contracts.pipeline import find_pipeline
from shared.settings import home

if TYPE_CHECKING:
    from services.cli.story import Story

FILE = Path("../shared/data/elec2.csv.gz")
FLOOR, GOAL = 0.780, 0.820
STEP = 500
FIRST_ROWS = 1_000
"""With the loop off the model that is trained on so many outcomes stays for ever."""
_NUMBERS = ("nswprice", "nswdemand", "vicprice", "vicdemand", "transfer")
_NEVER = 1_000_000_000
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Both runs: the story with the loop, and the one without."""

    on: "Story"
    off: "Story"
    seconds: float

    @property
    def holds(self) -> bool:
        """As promised: not below the floor, and better than without the loop."""
        return self.accuracy >= FLOOR and self.accuracy > self.accuracy_off

    @property
    def accuracy(self) -> float:
        """Prequential, over all events whose outcome is known."""
        return self.on.figures["accuracy"]

    @property
    def accuracy_off(self) -> float:
        """The same with the loop off."""
        return self.off.figures["accuracy"]


def declare(name: str, windows: bool, loop: bool) -> Path:
    """The pipeline elec2 under `name`, with outcomes a day late; returns its folder.

    With `windows` each number's mean over a day is a feature too. Without `loop` the first model stays.
    """
    folder = write_variant(find_pipeline("elec2"), home() / "declared", name, partitions=1)
    path = folder / "pipeline.toml"
    text = path.read_text().replace('horizon = "1d"', 'horizon = "2d"')
    text = text.replace('\ninterval = "30m"\n', '\ninterval = "30m"\nlabels_after = "1d"\n')
    if windows:
        text = text.replace("[model]\n", "".join(map(_mean, _NUMBERS)) + "[model]\n", 1)
    alone = [f"min_rows = {FIRST_ROWS}", 'on = ["labels"]', f"every_labels = {_NEVER}"]
    terms = [] if loop else alone
    path.write_text("\n".join([text.rstrip(), "", "[policy.retrain]", *terms, ""]))
    return folder


def _mean(field: str) -> str:
    return (
        f'[[feature]]\nname = "{field}_mean_1d"\nentity = "market"\n'
        f'aggregate = "mean"\nfield = "{field}"\nwindow = "1d"\n\n'
    )


def run_both(file: Path, windows: bool, size: int, limit: int | None, say: Say) -> Outcome:
    """Replay the file twice in lockstep, with the loop and without."""
    began = time.monotonic()
    stamp = int(time.time())
    on = _run(declare(f"elec2-loop-{stamp}", windows, loop=True), file, size, limit, say)
    off = _run(declare(f"elec2-alone-{stamp}", windows, loop=False), file, size, limit, say)
    return Outcome(on, off, time.monotonic() - began)


def _run(folder: Path, file: Path, size: int, limit: int | None, say: Say) -> "Story":
    from services.cli.chronicle import read_chronicle
    from services.cli.journey import Journey
    from services.cli.replay import watching
    from services.cli.script import labels_after_ms, read_rows, write_script

    journey = Journey(folder, services="loop")
    declared = journey.pipeline
    script = write_script(read_rows(file, declared, 0, limit), declared, labels_after_ms(declared))
    say(f"{declared.name}: {len(script)} records, {size} events a step")
    with journey, watching(declared.name) as watch:
        journey.replay_in_steps(script, size, watch=watch)
    story = read_chronicle(journey.platform, declared, journey.schema_ids).story()
    say(f"{declared.name}: accuracy {story.figures.get('accuracy', 0.0):.4f}")
    return story


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """What loop-elec2.json holds."""
    first = next((each for each in outcome.off.reigns if each.version > 1 and each.events), None)
    return {
        "accuracy": round(outcome.accuracy, 6),
        "accuracy_loop_off": round(outcome.accuracy_off, 6),
        "floor": FLOOR,
        "goal": GOAL,
        "events": outcome.on.events,
        "labelled": outcome.on.labelled,
        "labels_late": 48,
        "pipeline": outcome.on.pipeline,
        "pipeline_loop_off": outcome.off.pipeline,
        "loop_off_model": None if first is None else {"version": first.version, "from_event": first.first},
        "counts": outcome.on.counts,
        "versions": [
            {"version": each.version, "kind": each.kind, "first": each.first, "events": each.events}
            for each in outcome.on.reigns
            if each.events
        ],
        "seconds": round(outcome.seconds, 1),
    }


def outcome_lines(outcome: Outcome) -> list[str]:
    """The same for people."""
    told = outcome_json(outcome)
    first = told["loop_off_model"]
    stays = (
        "the model that has learnt nothing"
        if first is None
        else f"version {first['version']}, the first trained"
    )
    counts = ", ".join(f"{number} {what}s" for what, number in told["counts"].items())
    return [
        f"events               {told['events']}, {told['labelled']} outcomes, each 48 events late",
        f"the loop             {counts}",
        f"accuracy             {told['accuracy']:.4f} (prequential; floor {FLOOR}, goal {GOAL})",
        f"accuracy, loop off   {told['accuracy_loop_off']:.4f} ({stays} stays)",
    ]
