"""Turns pydantic's errors into problems: file, line, what is wrong, what to write instead."""

import json
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shared.contracts.expressions import nearest
from shared.contracts.policies import (
    BatchPolicy,
    Cost,
    DriftPolicy,
    GatePolicy,
    Policy,
    PromotionPolicy,
    RetrainPolicy,
    RollbackPolicy,
    ScoresPolicy,
    Slice,
)
from shared.contracts.positions import Located, Path
from shared.contracts.tables import (
    Decision,
    Declaration,
    EntityTable,
    EventTable,
    ExpressionFeature,
    LabelTable,
    ModelTable,
    PipelineTable,
    Rule,
    SourceTable,
    WindowFeature,
)
from shared.errors import Problem

_TAGS = ("expression", "window")
_MODELS: dict[tuple[str, ...], type[BaseModel]] = {
    (): Declaration,
    ("pipeline",): PipelineTable,
    ("event",): EventTable,
    ("event", "rule"): Rule,
    ("label",): LabelTable,
    ("entity",): EntityTable,
    ("model",): ModelTable,
    ("model", "decision"): Decision,
    ("policy",): Policy,
    ("policy", "batch"): BatchPolicy,
    ("policy", "slice"): Slice,
    ("policy", "scores"): ScoresPolicy,
    ("policy", "scores", "cost"): Cost,
    ("policy", "drift"): DriftPolicy,
    ("policy", "retrain"): RetrainPolicy,
    ("policy", "gate"): GatePolicy,
    ("policy", "promotion"): PromotionPolicy,
    ("policy", "rollback"): RollbackPolicy,
    ("source",): SourceTable,
}
_ARRAYS = {("entity",), ("feature",), ("event", "rule"), ("model", "decision"), ("policy", "slice")}
_PLAIN = {"bool_type", "string_type", "int_type", "float_type", "tuple_type", "model_type"}


def problems_of(error: ValidationError, at: Located) -> list[Problem]:
    """One problem a mistake, in the order of the file."""
    seen: dict[Path, Problem] = {}
    for detail in error.errors():
        path, model = _locate(detail["loc"])
        seen.setdefault(path, _problem(detail, path, model, at))
    return sorted(seen.values(), key=lambda problem: problem.line)


def _locate(loc: tuple[int | str, ...]) -> tuple[Path, type[BaseModel] | None]:
    """The path in the file and the model of the table around it; pydantic's own tags are taken out."""
    path: list[int | str] = []
    feature: type[BaseModel] | None = None
    for i, part in enumerate(loc):
        if i == 2 and loc[0] == "feature" and part in _TAGS:
            feature = ExpressionFeature if part == "expression" else WindowFeature
            continue
        path.append(part)
    for end in range(len(path) - 1, -1, -1):
        names = tuple(part for part in path[:end] if isinstance(part, str))
        if names == ("feature",):
            return tuple(path), feature
        if names in _MODELS:
            return tuple(path), _MODELS[names]
    return tuple(path), None


def _problem(detail: ErrorDetails, path: Path, model: type[BaseModel] | None, at: Located) -> Problem:
    key = next((part for part in reversed(path) if isinstance(part, str)), "")
    table = _table(path)
    keys = _keys(model)
    match detail["type"]:
        case "extra_forbidden":
            return at.problem(path, f"unknown key `{key}` in {table}", nearest(key, keys))
        case "missing":
            return at.problem(path[:-1], f"`{key}` is missing in {table}", _example(path, keys.get(key)))
        case "literal_error":
            return at.problem(path, f"`{key}` is {_toml(detail['input'])}", _choice(detail))
        case kind if kind in _PLAIN:
            message = f"`{key}` is {_toml(detail['input'])}, which is of another type"
            return at.problem(path, message, _example(path, keys.get(key)))
        case _:
            reason = detail["msg"].removeprefix("Value error, ")
            reason = reason[:1].lower() + reason[1:]
            message = f"`{key}` is {_toml(detail['input'])}: {reason}"
            return at.problem(path, message, _example(path, keys.get(key)))


def _keys(model: type[BaseModel] | None) -> dict[str, Any]:
    if model is None:
        return {}
    return {info.alias or name: info for name, info in model.model_fields.items()}


def _table(path: Path) -> str:
    names = tuple(part for part in path[:-1] if isinstance(part, str))
    if not names:
        return "the file"
    dotted = ".".join(names)
    return f"[[{dotted}]]" if names in _ARRAYS else f"[{dotted}]"


def _example(path: Path, info: Any) -> str:
    names = tuple(part for part in path if isinstance(part, str))
    header = ".".join(names)
    if names in _ARRAYS:
        return f"write a table [[{header}]]"
    if names in _MODELS:
        return f"write a table [{header}]"
    if info is None or not info.examples:
        return "see docs/schemas.md for what may stand here"
    return f"write `{names[-1]} = {_toml(info.examples[0])}`: {info.description}"


def _choice(detail: ErrorDetails) -> str:
    expected = detail.get("ctx", {}).get("expected", "")
    choices = {choice.strip(" '"): None for choice in expected.replace(" or ", ",").split(",")}
    value = detail["input"]
    return nearest(value if isinstance(value, str) else "", choices)


def _toml(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
