"""What the join and the score need of a declaration."""

from dataclasses import dataclass

from services.feedback.core.walk import Rules
from shared.contracts.pipeline import Label, Pipeline
from shared.errors import Refused


@dataclass(frozen=True, slots=True)
class JoinSpec:
    """The pipeline's names, classes and durations; `classes` are as records spell them.

    `width` is the number of class probabilities a prediction carries: 0 where one score says all.
    """

    pipeline: Pipeline
    label: Label
    rules: Rules
    classes: tuple[str, ...]
    features: tuple[str, ...]
    width: int

    @staticmethod
    def of(pipeline: Pipeline) -> "JoinSpec":
        """From the declaration; Refused where it has no [label]."""
        label = pipeline.label
        if label is None:
            raise Refused(f"{pipeline.name} declares no [label]; feedback needs outcomes")
        missing = None if label.missing is None else label.class_index(label.missing)
        classes = pipeline.class_names
        return JoinSpec(
            pipeline,
            label,
            Rules(label.horizon_ms, label.hold_ms, -1 if missing is None else missing),
            classes,
            pipeline.feature_names,
            len(classes) if len(classes) > 2 else 0,
        )
