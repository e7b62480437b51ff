"""A pipeline as its declaration says: pipeline.toml, event.avsc and label.avsc, checked against each other.

`load_pipeline` reads a folder, `parse_pipeline` the same from texts. Every mistake is found in one go and
reported with file, line and what to write instead. Times are milliseconds.
"""

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

import schemas
from shared.contracts.basics import ClassName
from shared.contracts.checks import Sources, check
from shared.contracts.expressions import Kind
from shared.contracts.fields import Field, fields_of
from shared.contracts.lint import lint_record
from shared.contracts.mistakes import problems_of
from shared.contracts.policies import Policy
from shared.contracts.positions import Located, parse_json, toml_lines
from shared.contracts.tables import (
    Cell,
    Declaration,
    EntityTable,
    EventTable,
    ExpressionFeature,
    LabelTable,
    ModelTable,
    SourceTable,
    WindowFeature,
)
from shared.errors import DeclarationError, Problem, Refused

AvroRecord = dict[str, Any]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, ignored_types=(cached_property,))


class Event(EventTable):
    """[event] with its schema."""

    avro: AvroRecord
    """event.avsc, parsed."""

    @property
    def fields(self) -> dict[str, Field]:
        """The event's top-level fields, in order."""
        return fields_of(self.avro)

    @property
    def kinds(self) -> dict[str, Kind]:
        """The kind of each field, as `compile_expression` takes it."""
        return {name: field.kind for name, field in self.fields.items()}


def class_text(value: ClassName) -> str:
    """A class as records spell it: `true` and `false` for booleans.

    >>> class_text(True), class_text(3), class_text("UP")
    ('true', '3', 'UP')
    """
    return str(value).lower() if isinstance(value, bool) else str(value)


class Label(LabelTable):
    """[label] with its schema; `positive` is set, `missing` is None where it was "none"."""

    avro: AvroRecord
    """label.avsc, parsed."""
    positive: ClassName
    hold_ms: int

    @property
    def fields(self) -> dict[str, Field]:
        """The label's top-level fields, in order."""
        return fields_of(self.avro)

    def class_index(self, value: ClassName) -> int | None:
        """Position of `value` in `classes`, None when it is not one of them."""
        return next((i for i, c in enumerate(self.classes) if type(c) is type(value) and c == value), None)


class Entity(EntityTable):
    """[[entity]]; `uses_labels` tells whether one of its features is over the label."""

    uses_labels: bool


class Source(SourceTable):
    """[source]; `label` holds a cell for each label field, those shared with the event included."""


class Pipeline(_Frozen):
    """All that is declared of one pipeline; stages are numbered as `entities`."""

    name: str
    partitions: int
    order: Literal["event", "arrival"]
    allowed_lateness_ms: int
    event: Event
    label: Label | None
    entities: tuple[Entity, ...]
    features: tuple[ExpressionFeature | WindowFeature, ...]
    model: ModelTable
    policy: Policy
    source: Source | None

    @property
    def loops(self) -> bool:
        """Whether the pipeline learns: drift, retrainer and controller run for it."""
        return self.policy.retrain is not None

    @property
    def class_count(self) -> int:
        """How many outcomes there are; 2 where no label is declared."""
        return 2 if self.label is None else len(self.label.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The declared classes as texts, in their order; empty where no label is declared."""
        return () if self.label is None else tuple(class_text(each) for each in self.label.classes)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """In declared order: the order of the feature vector."""
        return tuple(feature.name for feature in self.features)

    @property
    def expressions(self) -> tuple[ExpressionFeature, ...]:
        """The stateless features; the first stage computes them."""
        return tuple(f for f in self.features if isinstance(f, ExpressionFeature))

    @property
    def windows(self) -> tuple[WindowFeature, ...]:
        """The windowed features of all entities, in declared order."""
        return tuple(f for f in self.features if isinstance(f, WindowFeature))

    def windows_of(self, stage: int) -> tuple[WindowFeature, ...]:
        """The windowed features that this stage computes."""
        return tuple(f for f in self.windows if f.entity == self.entities[stage].name)

    def computed_after(self, stage: int) -> tuple[str, ...]:
        """Names of the features known behind this stage, in declared order."""
        known = {entity.name for entity in self.entities[: stage + 1]}
        return tuple(f.name for f in self.features if isinstance(f, ExpressionFeature) or f.entity in known)

    @cached_property
    def feature_fingerprint(self) -> str:
        """sha256 in hex over the ordered names and definitions of the features."""
        parts = [{"kind": f.kind, **f.model_dump(mode="json")} for f in self.features]
        keys = {entity.name: entity.key for entity in self.entities}
        text = json.dumps([parts, keys], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def find_pipeline(name: str, root: Path | None = None) -> Path:
    """The folder of the pipeline called `name`: below `root`, else among those that come with Millrace.

    `root` is by default `$MILLRACE_SCHEMAS`, or `schemas` in the current folder. Refused where there is none.
    """
    root = root or Path(os.environ.get("MILLRACE_SCHEMAS", "schemas"))
    for folder in (root / name, schemas.FOLDER / name):
        if re.fullmatch(r"[\w-]+", name) and (folder / "pipeline.toml").is_file():
            return folder
    local = sorted(path.parent.name for path in root.glob("*/pipeline.toml"))
    known = ", ".join(dict.fromkeys([*local, *schemas.pipeline_names()]))
    raise Refused(
        f"there is no pipeline `{name}` in {root}/; write one of {known}, or `millrace init {name}`"
    )


def load_pipeline(folder: Path) -> Pipeline:
    """The pipeline declared in `folder`; DeclarationError lists every mistake."""
    texts = {}
    for name in ("pipeline.toml", "event.avsc", "label.avsc"):
        path = folder / name
        try:
            texts[name] = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except UnicodeDecodeError as error:
            fix = "save the file in UTF-8"
            raise DeclarationError([Problem(str(path), 1, f"not UTF-8: {error.reason}", fix)]) from error
    return parse_pipeline(texts, str(folder), folder.resolve().name)


def parse_pipeline(texts: Mapping[str, str], folder: str, name: str) -> Pipeline:
    """The pipeline called `name` of these texts by file name; `folder` is for messages."""
    declaration, at, problems = _parse_toml(texts.get("pipeline.toml"), f"{folder}/pipeline.toml")
    event, event_at, event_problems = _parse_avsc(texts.get("event.avsc"), f"{folder}/event.avsc")
    wants_label = declaration is not None and declaration.label is not None
    label, label_at, label_problems = None, Located(f"{folder}/label.avsc", {}), list[Problem]()
    if "label.avsc" in texts or wants_label:
        label, label_at, label_problems = _parse_avsc(texts.get("label.avsc"), f"{folder}/label.avsc")
    problems += event_problems + label_problems
    if declaration is not None and event is not None and not label_problems:
        sources = Sources(declaration, event, label, at, event_at, label_at)
        problems += check(sources, name)
    if problems or declaration is None or event is None:
        raise DeclarationError(problems)
    return _build(declaration, event, label)


def _parse_toml(text: str | None, file: str) -> tuple[Declaration | None, Located, list[Problem]]:
    if text is None:
        fix = "write it, or start with `millrace init NAME`"
        return None, Located(file, {}), [Problem(file, 1, "the file is missing", fix)]
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"at line (\d+), column (\d+)", str(error))
        line = int(place[1]) if place else text.count("\n") + 1
        message = re.sub(r" \(at .*\)$", "", str(error))
        return None, Located(file, {}), [Problem(file, line, f"not TOML: {message}", "correct this line")]
    except RecursionError:
        return None, Located(file, {}), [Problem(file, 1, "nested too deeply", "write it flatter")]
    at = Located(file, toml_lines(text))
    try:
        return Declaration.model_validate(document), at, []
    except ValidationError as error:
        return None, at, problems_of(error, at)


def _parse_avsc(text: str | None, file: str) -> tuple[AvroRecord | None, Located, list[Problem]]:
    if text is None:
        fix = "write an Avro record schema there, or start with `millrace init NAME`"
        return None, Located(file, {}), [Problem(file, 1, "the file is missing", fix)]
    value, at, problems = parse_json(text, file)
    if value is not None:
        problems += lint_record(value, at)
    return (None if problems else value), at, problems


def _build(declared: Declaration, event: AvroRecord, label: AvroRecord | None) -> Pipeline:
    windows = [f for f in declared.feature if isinstance(f, WindowFeature)]
    labelled = {f.entity for f in windows if f.field == "label"}
    head = declared.pipeline
    return Pipeline.model_construct(
        name=head.name,
        partitions=head.partitions,
        order=head.order,
        allowed_lateness_ms=head.allowed_lateness_ms,
        event=Event.model_construct(**dict(declared.event), avro=event),
        label=_label(declared.label, label),
        entities=tuple(
            Entity.model_construct(**dict(e), uses_labels=e.name in labelled) for e in declared.entity
        ),
        features=declared.feature,
        model=declared.model,
        policy=declared.policy,
        source=_source(declared, label),
    )


def _label(table: LabelTable | None, avro: AvroRecord | None) -> Label | None:
    if table is None or avro is None:
        return None
    values = dict(table)
    if table.positive is None:
        values["positive"] = table.classes[-1]
    if table.hold_ms is None:
        values["hold_ms"] = table.horizon_ms
    if table.missing == "none":
        values["missing"] = None
    return Label.model_construct(**values, avro=avro)


def _source(declared: Declaration, label: AvroRecord | None) -> Source | None:
    if declared.source is None:
        return None
    values = dict(declared.source)
    if label is not None and declared.label is not None:
        shared: dict[str, Cell] = {**declared.source.event, **declared.source.label}
        wanted = [name for name in fields_of(label) if name != declared.label.time]
        values["label"] = {name: shared[name] for name in wanted if name in shared}
    return Source.model_construct(**values)
