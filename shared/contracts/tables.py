"""The tables of pipeline.toml as frozen models; attributes carry units, times are milliseconds.

A model here accepts exactly what may be written in its table; its field descriptions and examples become the
"what to write instead" of a mistake. Checks between tables and schemas are in `checks`.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator

from shared.contracts.basics import (
    AVRO_NAME,
    NAME,
    PIPELINE_NAME,
    ClassName,
    Duration,
    Instant,
    PositiveDuration,
    Table,
)
from shared.contracts.policies import Policy

Aggregate = Literal["count", "sum", "mean", "min", "max", "std", "last", "distinct", "since_last", "rate"]


class PipelineTable(Table):
    """[pipeline]: what it is called and how it runs."""

    name: str = Field(
        pattern=PIPELINE_NAME, description="lower case, also the folder's name", examples=["fraud"]
    )
    partitions: int = Field(4, ge=1, le=10_000, description="partitions of each of its topics", examples=[4])
    order: Literal["event", "arrival"] = Field(
        "event", description="one order by time over all partitions, or none", examples=["event"]
    )
    allowed_lateness_ms: Duration = Field(
        3_600_000,
        alias="allowed_lateness",
        description="how late an event still sees its window",
        examples=["1h"],
    )


class Rule(Table):
    """[[event.rule]]: an event outside of the bounds goes to the dead letters as `range.<field>`."""

    field: str = Field(description="a numeric field of the event", examples=["amount"])
    min: float | None = Field(
        None, allow_inf_nan=False, description="smallest value that is right", examples=[0.0]
    )
    max: float | None = Field(
        None, allow_inf_nan=False, description="largest value that is right", examples=[1e6]
    )


class EventTable(Table):
    """[event]: which field is what, and what is refused."""

    id: str = Field(description="the field with the event's id, a string", examples=["event_id"])
    time: str = Field(
        description="the field with the event's time, a timestamp-millis", examples=["event_time"]
    )
    key: str = Field(description="the field that keys the topic, a string", examples=["customer_id"])
    max_future_ms: Duration = Field(
        300_000,
        alias="max_future",
        description="how far ahead of its record an event may be",
        examples=["5m"],
    )
    max_age_ms: PositiveDuration | None = Field(
        None, alias="max_age", description="how far behind its record an event may be", examples=["30d"]
    )
    dedup_horizon_ms: PositiveDuration = Field(
        86_400_000, alias="dedup_horizon", description="how long an id is remembered", examples=["1d"]
    )
    rules: tuple[Rule, ...] = Field((), alias="rule", strict=False, description="bounds", examples=[])


class LabelTable(Table):
    """[label]: the outcome of an event, which arrives later."""

    id: str = Field(description="the field with the event's id", examples=["event_id"])
    time: str = Field(description="the field with the event's time", examples=["event_time"])
    field: str = Field(description="the field with the outcome", examples=["is_fraud"])
    classes: tuple[ClassName, ...] = Field(
        strict=False, min_length=2, description="every possible outcome", examples=[[0, 1]]
    )
    positive: ClassName | None = Field(None, description="the class that a score speaks of", examples=[1])
    horizon_ms: PositiveDuration = Field(
        alias="horizon", description="when a label counts as missing", examples=["7d"]
    )
    missing: ClassName | None = Field(
        "none", description="the class of an event without label, or none", examples=["none"]
    )

    source: str | None = Field(
        None, description="a text field that says who reports", examples=["reported_by"]
    )
    correction: str | None = Field(
        None, description="a boolean field: this label corrects one before", examples=["corrected"]
    )
    hold_ms: PositiveDuration | None = Field(
        None, alias="hold", description="how long a label waits for its event", examples=["1d"]
    )

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[ClassName, ...]) -> tuple[ClassName, ...]:
        if len(set(classes)) < len(classes) or len({type(c) for c in classes}) > 1:
            raise ValueError("classes must be distinct and of one type")
        return classes


class EntityTable(Table):
    """[[entity]]: whose events a window holds; one stage each, in this order."""

    name: str = Field(pattern=NAME, description="lower case", examples=["customer"])
    key: str = Field(description="the field with the entity's id, a string", examples=["customer_id"])


class ExpressionFeature(Table):
    """[[feature]] of the event alone."""

    name: str = Field(pattern=AVRO_NAME, description="letters, digits and _", examples=["AT_NIGHT"])
    expression: str = Field(description="over the event's fields", examples=["hour(event_time) <= 6"])
    categories: int | None = Field(
        None, ge=2, le=65_536, description="it is one of 0 to this less one, not an amount", examples=[7]
    )

    @property
    def kind(self) -> Literal["expression"]:
        """Which of the two kinds of feature this is."""
        return "expression"


class WindowFeature(Table):
    """[[feature]] over an entity's events in (t - delay - window, t - delay] at an event of time t."""

    name: str = Field(pattern=AVRO_NAME, description="letters, digits and _", examples=["COUNT_1D"])
    entity: str = Field(description="whose events", examples=["customer"])
    aggregate: Aggregate = Field(description="what is computed", examples=["mean"])
    field: str | None = Field(None, description='of which field, or "label"', examples=["amount"])
    window_ms: PositiveDuration = Field(alias="window", description="how wide", examples=["7d"])
    delay_ms: Duration = Field(0, alias="delay", description="how long ago it ends", examples=["7d"])
    default: float = Field(0.0, allow_inf_nan=False, description="value of an empty window", examples=[0.0])

    @property
    def kind(self) -> Literal["window"]:
        """Which of the two kinds of feature this is."""
        return "window"


def feature_kind(value: Any) -> str:
    """Which model a [[feature]] table is read by: the one with an `expression`, or a window."""
    if isinstance(value, ExpressionFeature) or (isinstance(value, dict) and "expression" in value):
        return "expression"
    return "window"


Feature = Annotated[
    Annotated[ExpressionFeature, Tag("expression")] | Annotated[WindowFeature, Tag("window")],
    Discriminator(feature_kind),
]


class Decision(Table):
    """[[model.decision]]: the business category of scores from `start` up to the next one's."""

    label: str = Field(min_length=1, description="the category", examples=["review"])
    start: float = Field(alias="from", ge=0.0, le=1.0, description="the lowest score in it", examples=[0.5])


class ModelTable(Table):
    """[model]: what answers the events."""

    name: str = Field(pattern=PIPELINE_NAME, description="lower case", examples=["fraud"])
    architecture: Literal["linear", "mlp"] = Field("linear", description="its kind", examples=["mlp"])
    hidden: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = Field(
        (), strict=False, description="widths of an mlp's hidden layers", examples=[[32, 16]]
    )
    decisions: tuple[Decision, ...] = Field(
        (), alias="decision", strict=False, description="categories by score", examples=[]
    )


class Cell(Table):
    """Where the value of a field comes from in a row of a file: a column, a constant, or the row's number."""

    kind: Literal["column", "constant", "row"]
    text: str


def _cell(value: object) -> Cell:
    if not isinstance(value, str) or value in ("", "="):
        raise ValueError(
            'not a source: a column "TX_AMOUNT", a constant "=nsw", or "#" for the row\'s number'
        )
    if value == "#":
        return Cell(kind="row", text="")
    if value.startswith("="):
        return Cell(kind="constant", text=value[1:])
    return Cell(kind="column", text=value)


Cells = dict[str, Annotated[Cell, BeforeValidator(_cell)]]


class SourceTable(Table):
    """[source]: how rows of a CSV or Parquet file become events and labels."""

    time: str | None = Field(None, description="the column with the time", examples=["TIME"])
    time_unit: Literal["s", "ms", "iso"] = Field(
        "ms", description="what the time column counts", examples=["s"]
    )
    epoch_ms: Instant = Field(
        0,
        alias="epoch",
        description="when the time is 0, or the first row's",
        examples=["2018-04-01T00:00:00Z"],
    )
    interval_ms: PositiveDuration | None = Field(
        None, alias="interval", description="time between rows without a time column", examples=["30m"]
    )
    order: str | None = Field(None, description="the column that orders rows", examples=["TRANSACTION_ID"])
    labels_after_ms: Duration | None = Field(
        None,
        alias="labels_after",
        description="how long after its event a label is sent, the horizon if absent",
        examples=["1d"],
    )
    event: Cells = Field({}, description="event field = column", examples=[])
    label: Cells = Field({}, description="label field = column", examples=[])


class Declaration(Table):
    """All of pipeline.toml."""

    pipeline: PipelineTable = Field(description="its name", examples=[])
    event: EventTable = Field(description="which field is what", examples=[])
    label: LabelTable | None = Field(None, description="the outcome", examples=[])
    entity: tuple[EntityTable, ...] = Field(
        strict=False, min_length=1, description="whose windows", examples=[]
    )
    feature: tuple[Feature, ...] = Field(strict=False, min_length=1, description="model inputs", examples=[])
    model: ModelTable = Field(description="what answers", examples=[])
    policy: Policy = Field(Policy.model_construct(), description="how services behave", examples=[])
    source: SourceTable | None = Field(None, description="how files are read", examples=[])
