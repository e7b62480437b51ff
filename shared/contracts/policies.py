"""The tables below [policy]: how services batch, score, watch, retrain, judge, promote and roll back.

Counts are of labels (rows of labeled.v1) unless they say otherwise: what the loop does is measured in events,
not in seconds.
"""

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field

from shared.contracts.basics import AVRO_NAME, Duration, PositiveDuration, Table

MetricName = Literal[
    "log_loss", "roc_auc", "average_precision", "accuracy", "f1", "calibration", "cost", "precision_at_k"
]
"""What scores.v1 carries; of `log_loss`, `calibration` and `cost` less is better."""
LESS_IS_BETTER: Final = frozenset({"log_loss", "calibration", "cost"})
Family = Literal["data", "prediction", "performance"]
TriggerKind = Literal["drift", "labels", "schedule", "command"]
ModelKind = Literal["torch", "gbt", "online"]
WindowPolicy = Literal["last", "since_drift", "weighted"]
_SIZES: Final = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def parse_size(value: object) -> int:
    """Bytes of a size such as "512MiB" or "4GiB".

    >>> parse_size("4GiB")
    4294967296
    """
    number, unit = (value[:-3], value[-3:]) if isinstance(value, str) else ("", "")
    if unit not in _SIZES or not number.isdecimal() or not 0 < len(number) < 7 or int(number) == 0:
        raise ValueError('not a size: a whole number and a unit, such as "512MiB" or "4GiB"')
    return int(number) * _SIZES[unit]


Size = Annotated[int, BeforeValidator(parse_size)]


class BatchPolicy(Table):
    """[policy.batch]: how many rows are scored together, and how long a row waits for company."""

    max_rows: int = Field(1_024, ge=1, le=1_000_000, description="rows in one batch", examples=[1024])
    max_delay_ms: Duration = Field(
        5, alias="max_delay", description="longest wait of a row", examples=["5ms"]
    )


class Slice(Table):
    """[[policy.slice]]: a part of the events that is scored and judged by itself."""

    name: str = Field(pattern=AVRO_NAME, description="letters, digits and _", examples=["night"])
    expression: str = Field(description="over the features", examples=["AT_NIGHT == 1"])


class Cost(Table):
    """[policy.scores.cost]: what a wrong answer costs."""

    false_positive: float = Field(1.0, ge=0.0, description="of a false alarm", examples=[1.0])
    false_negative: float = Field(1.0, ge=0.0, description="of a miss", examples=[10.0])


class ScoresPolicy(Table):
    """[policy.scores]: over which outcomes figures are taken, and how often."""

    window: int = Field(1_000, ge=10, le=1_000_000, description="outcomes in a figure", examples=[1000])
    every: int = Field(100, ge=1, le=1_000_000, description="outcomes between two figures", examples=[100])
    top_k: int | None = Field(None, ge=1, description="precision among the top k of a day", examples=[100])
    cost: Cost | None = Field(None, description="what a wrong answer costs", examples=[])


class DriftPolicy(Table):
    """[policy.drift]: what is watched, and how often a false alarm may come."""

    families: tuple[Family, ...] = Field(
        ("performance", "prediction", "data"),
        strict=False,
        description="what is watched",
        examples=[["data"]],
    )
    triggers: tuple[Family, ...] = Field(
        ("performance",), strict=False, description="which alarms retrain", examples=[["performance"]]
    )
    quiet: int = Field(500, ge=0, description="outcomes without alarm after one", examples=[500])
    false_alarm_every: int = Field(
        100_000, ge=1_000, description="events between two false alarms", examples=[100000]
    )
    reference: int = Field(1_000, ge=100, description="outcomes that say what is usual", examples=[1000])
    profile_rows: int = Field(
        1_000, ge=100, le=1_000_000, description="vectors, or answers, in one profile", examples=[1000]
    )


class RetrainPolicy(Table):
    """[policy.retrain]: when a model is trained, on what, and with which limits; declares the loop."""

    on: tuple[TriggerKind, ...] = Field(
        ("drift", "labels", "schedule", "command"),
        strict=False,
        description="what sets off a training",
        examples=[["drift", "labels"]],
    )
    every_labels: int = Field(1_000, ge=10, description="outcomes between trainings", examples=[1000])
    follow_up: int = Field(
        200, ge=0, description="rows behind an alarm's training until another; 0 for none", examples=[200]
    )
    schedule: str | None = Field(None, description="cron, in UTC", examples=["0 3 * * *"])
    min_rows: int = Field(200, ge=50, description="outcomes for a first training", examples=[200])
    kinds: tuple[ModelKind, ...] = Field(
        ("torch", "gbt", "online"),
        strict=False,
        min_length=1,
        description="what is tried",
        examples=[["gbt"]],
    )
    windows: tuple[WindowPolicy, ...] = Field(
        ("last", "since_drift", "weighted"),
        strict=False,
        min_length=1,
        description="which outcomes are learnt from",
        examples=[["last"]],
    )
    window_rows: int = Field(10_000, ge=100, description="outcomes in a training", examples=[10000])
    validation: float = Field(
        0.2, gt=0.0, lt=1.0, description="the newest share, which judges", examples=[0.2]
    )
    balance: bool = Field(
        False, description="weigh all classes alike: ranks rare ones, is no probability", examples=[True]
    )
    seed: int = Field(0, ge=0, description="of all that is random", examples=[0])
    time_limit_ms: PositiveDuration = Field(
        600_000, alias="time_limit", description="longest training", examples=["10m"]
    )
    memory_bytes: Size = Field(4 << 30, alias="memory", description="most memory", examples=["4GiB"])


class GatePolicy(Table):
    """[policy.gate]: how much better a candidate must be, on the same events, and how surely."""

    metric: Literal["log_loss", "roc_auc", "average_precision", "accuracy"] = Field(
        "log_loss", description="what is compared", examples=["log_loss"]
    )
    margin: float = Field(0.0, ge=0.0, description="least improvement", examples=[0.0])
    confidence: float = Field(0.9, ge=0.5, lt=1.0, description="of the bound, one-sided", examples=[0.9])
    bootstrap: int = Field(500, ge=50, le=10_000, description="resamples", examples=[500])
    min_rows: int = Field(30, ge=10, description="events to compare on", examples=[30])
    slice_tolerance: float = Field(0.1, ge=0.0, description="how much worse a slice may get", examples=[0.1])
    max_row_seconds: float | None = Field(None, gt=0.0, description="time a row at most", examples=[0.001])
    max_bytes: Size | None = Field(None, description="size of the artefact at most", examples=["64MiB"])


class PromotionPolicy(Table):
    """[policy.promotion]: the way from the gate to all of the traffic."""

    approval: bool = Field(False, description="whether a person must agree", examples=[True])
    shadow_labels: int = Field(0, ge=0, description="outcomes beside the champion", examples=[500])
    canary_share: float = Field(0.1, gt=0.0, lt=1.0, description="share of keys it answers", examples=[0.1])
    canary_labels: int = Field(0, ge=0, description="outcomes as a canary", examples=[500])


class RollbackPolicy(Table):
    """[policy.rollback]: when the version before comes back by itself."""

    metric: MetricName = Field("log_loss", description="what is watched", examples=["log_loss"])
    worse_by: float = Field(0.2, gt=0.0, description="than the version before it", examples=[0.2])
    window_labels: int = Field(500, ge=10, description="outcomes it is watched for", examples=[500])
    max_error_rate: float = Field(
        0.001, gt=0.0, lt=1.0, description="share of rows without a score", examples=[0.001]
    )
    max_row_seconds: float | None = Field(
        None, gt=0.0, description="time a row at most, in service", examples=[0.001]
    )


class Policy(Table):
    """[policy]: how the services behave."""

    batch: BatchPolicy = Field(BatchPolicy.model_construct(), description="batching", examples=[])
    slices: tuple[Slice, ...] = Field((), alias="slice", strict=False, description="parts", examples=[])
    scores: ScoresPolicy = Field(ScoresPolicy.model_construct(), description="figures", examples=[])
    drift: DriftPolicy = Field(DriftPolicy.model_construct(), description="what is watched", examples=[])
    retrain: RetrainPolicy | None = Field(None, description="when a model is trained", examples=[])
    gate: GatePolicy = Field(GatePolicy.model_construct(), description="the proof asked for", examples=[])
    promotion: PromotionPolicy = Field(
        PromotionPolicy.model_construct(), description="the way to all traffic", examples=[]
    )
    rollback: RollbackPolicy | None = Field(None, description="when it is undone", examples=[])
