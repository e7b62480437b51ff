"""The tables of pipeline.toml as frozen models; attributes carry units, times are milliseconds.

A model here accepts exactly what may be written in its table; its field descriptions and examples become the
"what to write instead" of a mistake. Checks between tables and schemas are in `checks`.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator

_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
MAX_DURATION_MS = 36_500 * 86_400_000
"""A hundred years: sums of durations and times stay far inside of 64 bits."""

Aggregate = Literal["count", "sum", "mean", "min", "max", "std", "last", "distinct", "since_last", "rate"]
NAME = r"^[a-z][a-z0-9_]{0,62}$"
PIPELINE_NAME = r"^[a-z][a-z0-9_-]{0,62}$"
AVRO_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"


def parse_duration(value: object) -> int:
    """Milliseconds of a duration such as "250ms", "30s", "5m", "1h" or "7d".

    >>> parse_duration("5m")
    300000
    """
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            'not a duration: a whole number and a unit, such as "250ms", "30s", "5m", "1h", "7d"'
        )
    if len(match[1]) > 15 or int(match[1]) * _UNIT_MS[match[2]] > MAX_DURATION_MS:
        raise ValueError("longer than 36500d, a hundred years")
    return int(match[1]) * _UNIT_MS[match[2]]


def _positive(value: object) -> int:
    ms = parse_duration(value)
    if ms == 0:
        raise ValueError("must be longer than nothing")
    return ms


def _instant(value: object) -> int:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if not isinstance(value, datetime):
        raise ValueError('not an instant, such as "2018-04-01T00:00:00Z"')
    moment = value if value.tzinfo else value.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000)


Duration = Annotated[int, BeforeValidator(parse_duration)]
PositiveDuration = Annotated[int, BeforeValidator(_positive)]
Instant = Annotated[int, BeforeValidator(_instant)]
ClassName = str | int | bool


class Table(BaseModel):
    """A table of pipeline.toml: frozen, no unknown keys, no guessed types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=False)


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
        alias="decision", strict=False, min_length=1, description="categories by score", examples=[]
    )


class BatchPolicy(Table):
    """[policy.batch]: how many rows are scored together, and how long a row waits for company."""

    max_rows: int = Field(1_024, ge=1, le=1_000_000, description="rows in one batch", examples=[1024])
    max_delay_ms: Duration = Field(
        5, alias="max_delay", description="longest wait of a row", examples=["5ms"]
    )


class Policy(Table):
    """[policy]: how the services behave."""

    batch: BatchPolicy = Field(BatchPolicy.model_construct(), description="batching", examples=[])


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
