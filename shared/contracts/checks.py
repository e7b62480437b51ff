"""Checks of a declaration against itself and its schemas; pure, every mistake is found in one go."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from shared.contracts.expressions import ExpressionError, Kind, compile_expression, nearest
from shared.contracts.fields import Field, fields_of
from shared.contracts.policies import RetrainPolicy
from shared.contracts.positions import Located, Path
from shared.contracts.tables import (
    Cell,
    Declaration,
    ExpressionFeature,
    LabelTable,
    SourceTable,
    WindowFeature,
)
from shared.errors import Problem

LABEL_AGGREGATES: Final = ("count", "sum", "mean", "rate")
"""What can be computed over labels."""
FIELDLESS: Final = ("count", "since_last")
"""What needs no field of the event."""
_TYPES: Final[Mapping[str, str]] = {
    "string": '"string"',
    "time": '{"type": "long", "logicalType": "timestamp-millis"}',
    "number": '"double"',
    "boolean": '"boolean"',
}


@dataclass(frozen=True)
class Sources:
    """A declaration with its schemas, and where everything stands."""

    declared: Declaration
    event: Mapping[str, Any]
    label: Mapping[str, Any] | None
    at: Located
    event_at: Located
    label_at: Located


def check(sources: Sources, folder: str) -> list[Problem]:
    """Every contradiction, in the order of pipeline.toml."""
    problems = list(_Check(sources).run(folder))
    order = {sources.at.file: 0, sources.event_at.file: 1}
    return sorted(dict.fromkeys(problems), key=lambda p: (order.get(p.file, 2), p.line))


class _Check:
    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.declared = sources.declared
        self.at = sources.at
        self.event = fields_of(sources.event)
        self.label = fields_of(sources.label) if sources.label is not None else None

    def run(self, folder: str) -> Iterator[Problem]:
        name = self.declared.pipeline.name
        if name != folder:
            yield self.at.problem(
                ("pipeline", "name"),
                f"name is {name!r} in the folder {folder!r}",
                f'write `name = "{folder}"`',
            )
        yield from self._event()
        yield from self._label()
        yield from self._names()
        yield from self._entities()
        yield from self._features()
        yield from self._model()
        yield from self._policy()
        if self.declared.source is not None:
            yield from self._source(self.declared.source)

    def _needs(
        self, path: Path, name: str, kind: str, fields: Mapping[str, Field], file: str
    ) -> Iterator[Problem]:
        """`name` must be a field of this kind that is never null."""
        found = fields.get(name)
        if found is None:
            yield self.at.problem(path, f"{file} has no field `{name}`", nearest(name, fields))
        elif found.kind != kind or found.nullable:
            located = self.sources.event_at if file == "event.avsc" else self.sources.label_at
            line = located.line(("fields", list(fields).index(name)))
            what = "can be null" if found.kind == kind else f"is not a {kind}"
            fix = f'write "type": {_TYPES[kind]} for it at {located.file}:{line}'
            yield self.at.problem(path, f"field `{name}` of {file} {what}", fix)

    def _event(self) -> Iterator[Problem]:
        event = self.declared.event
        yield from self._needs(("event", "id"), event.id, "string", self.event, "event.avsc")
        yield from self._needs(("event", "time"), event.time, "time", self.event, "event.avsc")
        yield from self._needs(("event", "key"), event.key, "string", self.event, "event.avsc")
        for i, rule in enumerate(event.rules):
            path: Path = ("event", "rule", i)
            field = self.event.get(rule.field)
            if field is None:
                yield self.at.problem(
                    (*path, "field"),
                    f"event.avsc has no field `{rule.field}`",
                    nearest(rule.field, self.event),
                )
            elif field.kind != "number":
                fix = "name a field of type int, long, float or double"
                yield self.at.problem((*path, "field"), f"field `{rule.field}` is not a number", fix)
            if rule.min is None and rule.max is None:
                yield self.at.problem(
                    path, "a rule without bounds", "write `min = 0.0`, `max = 100.0` or both"
                )
            elif rule.min is not None and rule.max is not None and rule.min > rule.max:
                yield self.at.problem((*path, "min"), "min is above max", "exchange min and max")

    def _label(self) -> Iterator[Problem]:
        declared, fields = self.declared.label, self.label
        if declared is None and fields is not None:
            fix = "write a table [label], or remove label.avsc"
            yield self.at.problem((), "label.avsc is there but [label] is not", fix)
        if declared is None or fields is None:
            return
        yield from self._needs(("label", "id"), declared.id, "string", fields, "label.avsc")
        yield from self._needs(("label", "time"), declared.time, "time", fields, "label.avsc")
        key = self.declared.event.key
        if key not in fields:
            fix = f'add a field "{key}" of type "string" to {self.sources.label_at.file}'
            yield self.at.problem(
                ("label",), f"label.avsc lacks the event's key `{key}`, by which it is sent", fix
            )
        if declared.source is not None:
            yield from self._needs(("label", "source"), declared.source, "string", fields, "label.avsc")
        if declared.correction is not None:
            yield from self._needs(
                ("label", "correction"), declared.correction, "boolean", fields, "label.avsc"
            )
        yield from self._classes(declared, fields)

    def _classes(self, label: LabelTable, fields: Mapping[str, Field]) -> Iterator[Problem]:
        field = fields.get(label.field)
        if field is None:
            yield self.at.problem(
                ("label", "field"), f"label.avsc has no field `{label.field}`", nearest(label.field, fields)
            )
            return
        wanted, example = _class_type(field)
        if wanted is None:
            fix = "write the type int, long, string, boolean or an enum for it"
            yield self.at.problem(("label", "field"), f"field `{label.field}` cannot hold a class", fix)
        elif any(type(value) is not wanted for value in label.classes):
            message = f"the classes are not of the type of field `{label.field}`"
            yield self.at.problem(("label", "classes"), message, f"write `classes = {example}`")
        symbols = field.avro.get("symbols", ()) if isinstance(field.avro, dict) else ()
        for value in label.classes:
            if symbols and isinstance(value, str) and value not in symbols:
                message = f"class {value!r} is not a symbol of `{label.field}`"
                yield self.at.problem(("label", "classes"), message, nearest(value, dict.fromkeys(symbols)))
        for key, chosen in (("positive", label.positive), ("missing", label.missing)):
            if chosen is None or (key == "missing" and chosen == "none"):
                continue
            if not any(type(chosen) is type(value) and chosen == value for value in label.classes):
                fix = "write one of " + ", ".join(repr(value) for value in label.classes)
                yield self.at.problem(("label", key), f"{key} is {chosen!r}, which is not a class", fix)

    def _names(self) -> Iterator[Problem]:
        """Event and label live in one generated schema: their types must have different names."""
        event_names = dict(_type_names(self.sources.event, (), ""))
        for name, path in event_names.items():
            if name.startswith("millrace."):
                fix = 'write a "namespace" of your own, such as "com.example"'
                yield self.sources.event_at.problem(path, f"the name {name} is Millrace's own", fix)
        for name, path in _type_names(self.sources.label or {}, (), ""):
            if name in event_names or name.startswith("millrace."):
                message = f"the name {name} is taken" + (" by event.avsc" if name in event_names else "")
                yield self.sources.label_at.problem(path, message, "write another name, such as Label")
        if "features" in self.event:
            path = ("fields", list(self.event).index("features"))
            fix = "call it otherwise, such as `details`"
            yield self.sources.event_at.problem(path, "a field must not be called `features`", fix)

    def _entities(self) -> Iterator[Problem]:
        entities = self.declared.entity
        names = [entity.name for entity in entities]
        for i, entity in enumerate(entities):
            path: Path = ("entity", i)
            if entity.name in names[:i]:
                yield self.at.problem(
                    (*path, "name"), f"entity `{entity.name}` is declared twice", "rename one of them"
                )
            yield from self._needs((*path, "key"), entity.key, "string", self.event, "event.avsc")
        if entities[0].key != self.declared.event.key:
            key = self.declared.event.key
            fix = f'put the entity with `key = "{key}"` first, or set `key` of [event]'
            message = f"the first entity's key is `{entities[0].key}`, the event's is `{key}`"
            yield self.at.problem(("entity", 0, "key"), message, fix)
        yield from self._label_keys(names)

    def _label_keys(self, names: list[str]) -> Iterator[Problem]:
        """A label passes the stages up to the last that uses labels; it must carry their keys."""
        windows = [f for f in self.declared.feature if isinstance(f, WindowFeature) and f.field == "label"]
        last = max((names.index(f.entity) for f in windows if f.entity in names), default=-1)
        if self.label is None or self.declared.label is None:
            return
        for i, entity in enumerate(self.declared.entity[: last + 1]):
            if entity.key not in self.label:
                fix = f'add a field "{entity.key}" of type "string" to {self.sources.label_at.file}'
                message = f"label.avsc lacks `{entity.key}`, which its way through the stages needs"
                yield self.at.problem(("entity", i, "key"), message, fix)
            else:
                yield from self._needs(("entity", i, "key"), entity.key, "string", self.label, "label.avsc")

    def _features(self) -> Iterator[Problem]:
        seen: set[str] = set()
        for i, feature in enumerate(self.declared.feature):
            path: Path = ("feature", i)
            if feature.name in seen:
                message = f"feature `{feature.name}` is declared twice"
                yield self.at.problem((*path, "name"), message, "rename or remove one of them")
            seen.add(feature.name)
            if isinstance(feature, ExpressionFeature):
                yield from self._expression(feature, (*path, "expression"))
            else:
                yield from self._window(feature, path)

    def _expression(self, feature: ExpressionFeature, path: Path) -> Iterator[Problem]:
        kinds = {name: field.kind for name, field in self.event.items()}
        try:
            expression = compile_expression(feature.expression, kinds)
        except ExpressionError as error:
            yield self.at.problem(path, error.message, error.fix)
            return
        for name in expression.fields:
            if self.event[name].nullable and name not in expression.guarded:
                fix = f"write `where(is_null({name}), 0, {name})` for it"
                yield self.at.problem(path, f"field `{name}` can be null, a feature cannot", fix)

    def _window(self, feature: WindowFeature, path: Path) -> Iterator[Problem]:
        entities = {entity.name: None for entity in self.declared.entity}
        if feature.entity not in entities:
            yield self.at.problem(
                (*path, "entity"), f"there is no entity `{feature.entity}`", nearest(feature.entity, entities)
            )
        if feature.field == "label":
            yield from self._label_window(feature, path)
        elif feature.aggregate == "rate":
            fix = 'write `field = "label"`, or `aggregate = "mean"` for a field of the event'
            yield self.at.problem((*path, "aggregate"), "rate is for labels only", fix)
        elif feature.aggregate in FIELDLESS:
            if feature.field is not None:
                fix = "remove `field`" + (
                    ', or write `field = "label"`' if feature.aggregate == "count" else ""
                )
                yield self.at.problem(
                    (*path, "field"), f"{feature.aggregate} is of events, not of a field", fix
                )
        elif feature.field is None:
            fix = "write `field = ...`, " + _numeric_choice(self.event)
            yield self.at.problem(path, f"{feature.aggregate} needs a field", fix)
        else:
            yield from self._windowed_field(feature.field, feature.aggregate, (*path, "field"))

    def _label_window(self, feature: WindowFeature, path: Path) -> Iterator[Problem]:
        if self.declared.label is None:
            fix = "declare [label] and label.avsc, or use a field of the event"
            yield self.at.problem((*path, "field"), "the pipeline has no label", fix)
        if feature.aggregate not in LABEL_AGGREGATES:
            fix = "write one of " + ", ".join(f"`{name}`" for name in LABEL_AGGREGATES)
            yield self.at.problem((*path, "aggregate"), f"{feature.aggregate} cannot be taken of labels", fix)
        elif feature.aggregate in ("sum", "mean") and self.label and self.declared.label:
            field = self.label.get(self.declared.label.field)
            if field is not None and field.kind not in ("number", "boolean"):
                fix = "write `rate` (the share of the positive class) or `count`"
                yield self.at.problem(
                    (*path, "aggregate"), f"{feature.aggregate} of a label that is a text", fix
                )

    def _windowed_field(self, name: str, aggregate: str, path: Path) -> Iterator[Problem]:
        field = self.event.get(name)
        if field is None:
            known = dict.fromkeys([*self.event, "label"])
            yield self.at.problem(path, f"event.avsc has no field `{name}`", nearest(name, known))
            return
        allowed = ("number", "boolean", "string") if aggregate == "distinct" else ("number", "boolean")
        if field.kind not in allowed:
            message = f"{aggregate} of `{name}`, which is not a number"
            yield self.at.problem(path, message, _numeric_choice(self.event))
        elif field.nullable:
            position = list(self.event).index(name)
            line = self.sources.event_at.line(("fields", position))
            fix = f"give it a type without null and a default at {self.sources.event_at.file}:{line}"
            yield self.at.problem(path, f"field `{name}` can be null, a window's values cannot", fix)

    def _model(self) -> Iterator[Problem]:
        model = self.declared.model
        path: Path = ("model", "decision")
        if model.architecture == "linear" and model.hidden:
            fix = 'remove `hidden`, or write `architecture = "mlp"`'
            yield self.at.problem(("model", "hidden"), "a linear model has no hidden layers", fix)
        if model.architecture == "mlp" and not model.hidden:
            fix = "write `hidden = [32, 16]`"
            yield self.at.problem(("model", "architecture"), "an mlp needs hidden layers", fix)
        classes = self.declared.label.classes if self.declared.label is not None else ()
        starts = [decision.start for decision in model.decisions]
        if starts and len(classes) > 2:
            fix = "remove them: the answer is the likeliest class"
            yield self.at.problem(
                path, f"decisions are by one score, and there are {len(classes)} classes", fix
            )
        elif not starts and len(classes) <= 2:
            fix = "write [[model.decision]] with `label = ...` and `from = 0.0`"
            yield self.at.problem(("model",), "scores have no categories", fix)
        if starts and starts[0] != 0.0:
            fix = "write `from = 0.0` in the first [[model.decision]]"
            yield self.at.problem((*path, 0, "from"), f"scores below {starts[0]} have no category", fix)
        for i in range(1, len(starts)):
            if starts[i] <= starts[i - 1]:
                message = f"from is {starts[i]}, not above {starts[i - 1]} before it"
                yield self.at.problem((*path, i, "from"), message, "order the decisions by ascending `from`")
        labels = [decision.label for decision in model.decisions]
        for i, label in enumerate(labels):
            if label in labels[:i]:
                message = f"category {label!r} is declared twice"
                yield self.at.problem((*path, i, "label"), message, "rename one of them")

    def _policy(self) -> Iterator[Problem]:
        policy = self.declared.policy
        if policy.retrain is not None and self.declared.label is None:
            fix = "declare [label], or remove [policy.retrain]"
            yield self.at.problem(("policy", "retrain"), "without outcomes there is nothing to learn", fix)
        if policy.retrain is not None:
            yield from self._follow_up(policy.retrain, policy.drift.quiet)
        kinds: dict[str, Kind] = {feature.name: "number" for feature in self.declared.feature}
        names = [each.name for each in policy.slices]
        for i, each in enumerate(policy.slices):
            path: Path = ("policy", "slice", i)
            if each.name in names[:i] or each.name == "all":
                yield self.at.problem((*path, "name"), f"slice `{each.name}` is taken", "rename one of them")
            try:
                compile_expression(each.expression, kinds)
            except ExpressionError as error:
                yield self.at.problem((*path, "expression"), error.message, error.fix)

    def _follow_up(self, retrain: RetrainPolicy, quiet: int) -> Iterator[Problem]:
        """No alarm may set off a training between another and its follow-up: the order would be chance."""
        rows = retrain.follow_up
        if "drift" not in retrain.on or quiet >= rows:
            return
        said = "follow_up" in retrain.model_fields_set
        path = ("policy", "retrain", "follow_up") if said else ("policy", "drift", "quiet")
        message = f"quiet is {quiet}, less than the follow_up of {rows} in [policy.retrain]"
        fix = f"write `quiet = {rows}` or more, or a `follow_up` of at most {quiet}"
        yield self.at.problem(path, message, fix)

    def _source(self, source: SourceTable) -> Iterator[Problem]:
        if source.time is None and source.interval_ms is None:
            fix = 'write `time = "COLUMN"`, or `interval = "1s"` where rows have no time'
            yield self.at.problem(("source",), "rows have neither a time nor an interval", fix)
        if source.time is not None and source.interval_ms is not None:
            yield self.at.problem(("source", "interval"), "rows have a time already", "remove `interval`")
        yield from self._cells("event", source.event, self.event, self.declared.event.time, {})
        if self.label is not None and self.declared.label is not None:
            yield from self._cells("label", source.label, self.label, self.declared.label.time, source.event)
        elif source.label:
            yield self.at.problem(("source", "label"), "the pipeline has no label", "remove [source.label]")

    def _cells(
        self,
        table: str,
        cells: Mapping[str, Cell],
        fields: Mapping[str, Field],
        time: str,
        shared: Mapping[str, Cell],
    ) -> Iterator[Problem]:
        for name in cells:
            if name == time:
                fix = "remove it; `time` of [source] says where it comes from"
                yield self.at.problem(("source", table, name), f"`{name}` is the time already", fix)
            elif name not in fields:
                message = f"{table}.avsc has no field `{name}`"
                yield self.at.problem(("source", table, name), message, nearest(name, fields))
        for name, field in fields.items():
            optional = name == time or field.nullable or field.has_default
            if not optional and name not in cells and name not in shared:
                message = f"nothing says where `{name}` of {table}.avsc comes from"
                yield self.at.problem(
                    ("source", table), message, f'write `{name} = "COLUMN"` under [source.{table}]'
                )


def _class_type(field: Field) -> tuple[type | None, str]:
    if field.nullable:
        return None, ""
    if field.kind == "boolean":
        return bool, "[false, true]"
    if field.kind == "string" or (isinstance(field.avro, dict) and field.avro.get("type") == "enum"):
        return str, '["no", "yes"]'
    if field.kind == "number" and field.avro not in ("float", "double"):
        return int, "[0, 1]"
    return None, ""


def _numeric_choice(fields: Mapping[str, Field]) -> str:
    names = [name for name, field in fields.items() if field.kind in ("number", "boolean")]
    return (
        "a numeric field: " + ", ".join(f"`{name}`" for name in names)
        if names
        else "there is no numeric field"
    )


def _type_names(node: Any, path: Path, namespace: str) -> Iterator[tuple[str, Path]]:
    """The full names of the named types defined in a schema, and where."""
    if isinstance(node, list):
        for i, item in enumerate(node):
            yield from _type_names(item, (*path, i), namespace)
    if not isinstance(node, dict):
        return
    if node.get("type") in ("record", "enum", "fixed") and isinstance(node.get("name"), str):
        name = node["name"]
        full = name if "." in name else ".".join(p for p in (node.get("namespace") or namespace, name) if p)
        yield full, path
        namespace = full.rpartition(".")[0]
    for i, field in enumerate(node.get("fields", ())):
        yield from _type_names(field.get("type"), (*path, "fields", i, "type"), namespace)
    for key in ("items", "values", "type"):
        if isinstance(node.get(key), dict | list):
            yield from _type_names(node[key], (*path, key), namespace)
