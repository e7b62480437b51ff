"""The story as a picture: the trailing figure over the events, with a line for each thing that happened."""

from pathlib import Path
from typing import TYPE_CHECKING

from services.cli.story import Story

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"alarm": "#c0392b", "training": "#7f8c8d", "promotion": "#1e8449", "rollback": "#8e44ad"}
NAMES = {"accuracy": "accuracy", "roc_auc": "area under the ROC curve"}


def draw(story: Story, path: Path, change: int | None = None) -> None:
    """Write a PNG; the event at which the world is known to have changed is shaded from there on."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(11, 4.2), dpi=110)
    try:
        _trail(axes, story)
        _marks(axes, story)
        if change is not None:
            axes.axvspan(change, max(story.last, change + 1), color="#f4d03f", alpha=0.15, label="changed")
        axes.set_title(f"{story.pipeline}: {_headline(story)}", fontsize=10)
        axes.set_xlabel("events")
        axes.set_ylabel(f"{NAMES[story.metric]} of the last {story.window}")
        axes.grid(alpha=0.25)
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles, labels, loc="lower right", fontsize=8)
        figure.tight_layout()
        figure.savefig(path, format="png")
    finally:
        pyplot.close(figure)


def _headline(story: Story) -> str:
    figure = story.figures.get(story.metric)
    return f"{story.events} events" + ("" if figure is None else f", {story.metric} {figure:.4f} over all")


def _trail(axes: "Axes", story: Story) -> None:
    places = [place for place, _ in story.trail]
    axes.plot(places, [value for _, value in story.trail], color="#1f4e79", linewidth=1.3, label=story.metric)
    axes.set_xlim(story.first, max(story.last, story.first + 1))


def _marks(axes: "Axes", story: Story) -> None:
    told: set[str] = set()
    for mark in story.marks:
        colour = COLOURS.get(mark.what)
        if colour is None or mark.index is None:
            continue
        label = None if mark.what in told else mark.what
        told.add(mark.what)
        style = "-" if mark.what == "promotion" else ":" if mark.what == "training" else "--"
        axes.axvline(mark.index, color=colour, linestyle=style, linewidth=0.9, alpha=0.8, label=label)
        if mark.what in ("promotion", "rollback") and mark.version is not None:
            axes.annotate(
                str(mark.version),
                (mark.index, 1.0),
                xycoords=("data", "axes fraction"),
                fontsize=7,
                color=colour,
                xytext=(2, -9),
                textcoords="offset points",
            )
