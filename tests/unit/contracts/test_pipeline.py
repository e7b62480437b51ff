"""Declarations: what a right one becomes, and what is said of a wrong one."""

from pathlib import Path

import pytest

from shared.contracts.pipeline import find_pipeline, load_pipeline
from shared.contracts.tables import Cell, WindowFeature
from shared.errors import DeclarationError, Refused
from tests.unit.contracts.texts import EVENT, LABEL, TEXTS, TOML, parse, problems

DAY_MS = 86_400_000


def test_attributes_carry_units() -> None:
    pipeline = parse()
    assert (pipeline.name, pipeline.partitions, pipeline.order) == ("shop", 2, "event")
    assert pipeline.allowed_lateness_ms == 3_600_000
    assert pipeline.event.max_future_ms == 300_000
    assert pipeline.event.max_age_ms is None
    assert pipeline.event.dedup_horizon_ms == DAY_MS
    assert [(rule.field, rule.min, rule.max) for rule in pipeline.event.rules] == [("amount", 0.0, 1000.0)]
    assert pipeline.label is not None
    assert (pipeline.label.classes, pipeline.label.positive, pipeline.label.missing) == ((0, 1), 1, None)
    assert pipeline.label.horizon_ms == 7 * DAY_MS
    assert [(e.name, e.key, e.uses_labels) for e in pipeline.entities] == [
        ("customer", "customer_id", False),
        ("shop", "shop_id", True),
    ]
    risk = pipeline.features[2]
    assert isinstance(risk, WindowFeature)
    assert (risk.window_ms, risk.delay_ms, risk.default) == (7 * DAY_MS, 2 * DAY_MS, 0.0)
    assert pipeline.feature_names == ("AT_NIGHT", "SPENT", "RISK")
    assert [pipeline.computed_after(stage) for stage in (0, 1)] == [
        ("AT_NIGHT", "SPENT"),
        pipeline.feature_names,
    ]
    assert [(d.label, d.start) for d in pipeline.model.decisions] == [("ship", 0.0), ("review", 0.5)]
    assert (pipeline.policy.batch.max_rows, pipeline.policy.batch.max_delay_ms) == (512, 5)


def test_source_says_where_every_field_comes_from() -> None:
    source = parse().source
    assert source is not None
    assert (source.time, source.time_unit, source.epoch_ms) == ("when", "s", 1_735_689_600_000)
    assert source.event["order_id"] == Cell(kind="row", text="")
    assert source.event["shop_id"] == Cell(kind="constant", text="main")
    assert source.label == {
        "order_id": Cell(kind="row", text=""),
        "customer_id": Cell(kind="column", text="customer"),
        "shop_id": Cell(kind="constant", text="main"),
        "returned": Cell(kind="column", text="returned"),
    }


def test_defaults_are_those_of_the_manual() -> None:
    short = TOML.replace("positive = 1\n", "").replace('missing = "none"\n', "").replace("[policy.batch]", "")
    short = (
        short.replace("max_rows = 512\n", "")
        .replace('max_delay = "5ms"\n', "")
        .replace("partitions = 2\n", "")
    )
    pipeline = parse(toml=short)
    assert pipeline.label is not None
    assert (pipeline.label.positive, pipeline.label.missing, pipeline.partitions) == (1, None, 4)
    assert (pipeline.policy.batch.max_rows, pipeline.policy.batch.max_delay_ms) == (1024, 5)


def test_a_pipeline_may_do_without_labels() -> None:
    toml = TOML[: TOML.index("[label]")] + TOML[TOML.index("[[entity]]") : TOML.index("[source.label]")]
    toml = toml.replace('aggregate = "rate"\nfield = "label"\n', 'aggregate = "count"\n')
    texts = {"pipeline.toml": toml, "event.avsc": EVENT}
    assert problems(texts) == []


def test_fingerprint_follows_definitions_and_nothing_else() -> None:
    base = parse().feature_fingerprint
    assert len(base) == 64
    assert parse(toml=TOML.replace("from = 0.5", "from = 0.6")).feature_fingerprint == base
    for old, new in (
        ('window = "7d"\ndelay', 'window = "6d"\ndelay'),
        ("<= 6", "<= 5"),
        ('"SPENT"', '"SPENDING"'),
    ):
        assert parse(toml=TOML.replace(old, new)).feature_fingerprint != base


def test_class_index_does_not_take_true_for_one() -> None:
    label = parse().label
    assert label is not None
    assert [label.class_index(value) for value in (0, 1, 2, True, "1")] == [0, 1, None, None, None]


# file, text in it, what it becomes, text of the line reported, part of the message, part of the fix
MISTAKES = [
    (
        "toml",
        'window = "7d"',
        'window = "99999d"',
        'window = "99999d"',
        "a hundred years",
        'write `window = "7d"`',
    ),
    ("toml", 'delay = "2d"', f'delay = "{"9" * 5_000}d"', "delay", "a hundred years", 'write `delay = "7d"`'),
    ("toml", 'delay = "2d"', 'delay = "-2d"', "delay", "not a duration", 'write `delay = "7d"`'),
    (
        "toml",
        'window = "7d"\ndelay',
        'windw = "7d"\ndelay',
        'windw = "7d"',
        "unknown key `windw`",
        "did you mean `window`?",
    ),
    (
        "toml",
        'order = "event"',
        'order = "events"',
        'order = "events"',
        '`order` is "events"',
        "did you mean `event`?",
    ),
    (
        "toml",
        'aggregate = "sum"',
        'aggregate = "summ"',
        'aggregate = "summ"',
        '"summ"',
        "did you mean `sum`?",
    ),
    ("toml", 'horizon = "7d"\n', "", "[label]", "`horizon` is missing in [label]", 'write `horizon = "7d"`'),
    ("toml", 'entity = "customer"\n', "", None, "`entity` is missing in [[feature]]", "write `entity ="),
    (
        "toml",
        "partitions = 2",
        'partitions = "2"',
        'partitions = "2"',
        "another type",
        "write `partitions = 4`",
    ),
    (
        "toml",
        "partitions = 2",
        "partitions = 0",
        "partitions = 0",
        "greater than or equal to 1",
        "partitions = 4",
    ),
    ("toml", '"5m"', '"5 minutes"', "max_future", "not a duration", 'write `max_future = "5m"`'),
    (
        "toml",
        'window = "7d"\n\n',
        'window = "0d"\n\n',
        'window = "0d"',
        "longer than nothing",
        'write `window = "7d"`',
    ),
    ("toml", "[policy.batch]", "[policy.batches]", "[policy.batches]", "unknown key `batches`", "`batch`"),
    (
        "toml",
        "[policy.batch]",
        "[polcy.batch]",
        "[polcy.batch]",
        "unknown key `polcy`",
        "did you mean `policy`?",
    ),
    (
        "toml",
        "[policy.batch]",
        "[policy.drift]\nquiet = 100\n\n[policy.retrain]\n\n[policy.batch]",
        "quiet = 100",
        "quiet is 100, less than the follow_up of 200 in [policy.retrain]",
        "write `quiet = 200` or more, or a `follow_up` of at most 100",
    ),
    (
        "toml",
        "[policy.batch]",
        "[policy.retrain]\nfollow_up = 600\n\n[policy.batch]",
        "follow_up = 600",
        "quiet is 500, less than the follow_up of 600 in [policy.retrain]",
        "write `quiet = 600` or more, or a `follow_up` of at most 500",
    ),
    ("toml", 'name = "AT_NIGHT"', 'name = "AT-NIGHT"', "AT-NIGHT", "pattern", "letters, digits and _"),
    ("toml", 'name = "AT_NIGHT"', 'name = "SPENT"', None, "declared twice", "rename"),
    ("toml", 'name = "AT_NIGHT"', "name = = 3", "= = 3", "not TOML", "correct this line"),
    (
        "toml",
        'name = "shop"\npart',
        'name = "store"\npart',
        'name = "store"',
        "in the folder 'shop'",
        'name = "shop"',
    ),
    (
        "toml",
        'id = "order_id"\ntime',
        'id = "orderid"\ntime',
        'id = "orderid"',
        "no field `orderid`",
        "`order_id`",
    ),
    (
        "toml",
        'id = "order_id"\ntime',
        'id = "amount"\ntime',
        'id = "amount"',
        "is not a string",
        "event.avsc:11",
    ),
    ("toml", 'time = "order_time"', 'time = "amount"', 'time = "amount"', "not a time", "timestamp-millis"),
    (
        "toml",
        'key = "customer_id"\nmax',
        'key = "shop_id"\nmax',
        None,
        "first entity's key",
        'key = "shop_id"` first',
    ),
    ("toml", 'field = "amount"\nmin', 'field = "amout"\nmin', "amout", "no field `amout`", "`amount`"),
    ("toml", 'field = "amount"\nmin', 'field = "shop_id"\nmin', "shop_id", "not a number", "double"),
    ("toml", "min = 0.0", "min = 2000.0", "min = 2000.0", "min is above max", "exchange"),
    ("toml", "min = 0.0\nmax = 1000.0\n", "", "[[event.rule]]", "without bounds", "min = 0.0"),
    ("toml", 'field = "returned"', 'field = "return"', 'field = "return"', "no field `return`", "`returned`"),
    ("toml", "classes = [0, 1]", 'classes = ["no", "yes"]', "classes", "not of the type", "classes = [0, 1]"),
    ("toml", "classes = [0, 1]", "classes = [0, 0]", "classes", "distinct", "classes = [0, 1]"),
    ("toml", "classes = [0, 1]", "classes = [1]", "classes", "at least 2", "classes = [0, 1]"),
    ("toml", "positive = 1", "positive = 2", "positive = 2", "not a class", "0, 1"),
    ("toml", 'missing = "none"', "missing = 3", "missing = 3", "not a class", "0, 1"),
    ("toml", 'key = "shop_id"', 'key = "shopid"', 'key = "shopid"', "no field `shopid`", "`shop_id`"),
    ("toml", 'name = "shop"\nkey', 'name = "customer"\nkey', None, "declared twice", "rename"),
    ("toml", 'entity = "shop"', 'entity = "shops"', 'entity = "shops"', "no entity `shops`", "`shop`"),
    ("toml", 'field = "amount"\nwin', 'field = "amunt"\nwin', "amunt", "no field `amunt`", "`amount`"),
    ("toml", 'field = "amount"\nwin', 'field = "shop_id"\nwin', None, "not a number", "`amount`"),
    ("toml", 'field = "amount"\nwin', 'field = "discount"\nwin', "discount", "can be null", "event.avsc:12"),
    ("toml", 'field = "amount"\nwindow', "window", None, "sum needs a field", "`amount`"),
    (
        "toml",
        'aggregate = "sum"',
        'aggregate = "count"',
        'field = "amount"\nwin',
        "count is of events",
        "remove `field`",
    ),
    (
        "toml",
        'aggregate = "sum"',
        'aggregate = "rate"',
        'aggregate = "rate"',
        "rate is for labels",
        'field = "label"',
    ),
    (
        "toml",
        'aggregate = "rate"',
        'aggregate = "std"',
        'aggregate = "std"',
        "cannot be taken of labels",
        "`rate`",
    ),
    ("toml", "hour(order_time)", "hour(amount)", "hour(amount)", "needs a time", "timestamp-millis"),
    ("toml", "hour(order_time)", "hours(order_time)", "hours", "no function `hours`", "did you mean `hour`?"),
    ("toml", "hour(order_time) <= 6", "amuont > 3", "amuont", "no field `amuont`", "did you mean `amount`?"),
    (
        "toml",
        "hour(order_time) <= 6",
        "discount",
        "expression",
        "can be null",
        "where(is_null(discount), 0, discount)",
    ),
    (
        "toml",
        "hour(order_time) <= 6",
        "hour(order_time",
        "expression",
        "is not an expression",
        "write it as in Python",
    ),
    ("toml", "hidden = [8]\n", "", "architecture", "needs hidden layers", "hidden = [32, 16]"),
    ("toml", '"mlp"', '"linear"', "hidden", "no hidden layers", "remove `hidden`"),
    ("toml", "from = 0.0", "from = 0.1", "from = 0.1", "no category", "from = 0.0"),
    ("toml", "from = 0.5", "from = 0.0", None, "not above 0.0", "ascending"),
    ("toml", "from = 0.5", "from = 1.5", "from = 1.5", "less than or equal to 1", "from = 0.5"),
    ("toml", 'label = "review"', 'label = "ship"', None, "declared twice", "rename"),
    ("toml", 'time = "when"\n', "", "[source]", "neither a time nor an interval", "interval"),
    ("toml", '"2025-01-01T00:00:00Z"', '"new year"', "epoch", "not an instant", "2018-04-01T00:00:00Z"),
    ("toml", 'amount = "amount"\n', "", "[source.event]", "where `amount`", 'amount = "COLUMN"'),
    ("toml", 'amount = "amount"', 'amont = "amount"', 'amont = "amount"', "no field `amont`", "`amount`"),
    ("toml", 'amount = "amount"', "amount = 3", "amount = 3", "not a source", "see docs"),
    (
        "toml",
        'returned = "returned"',
        'order_time = "returned"',
        'order_time = "returned"',
        "the time already",
        "remove",
    ),
    (
        "event",
        '"doc": "Euros."',
        '"doc": ""',
        '"amount"',
        "field `amount` has no doc",
        '"doc": "what it means',
    ),
    ("event", '"namespace": "example.shop",\n', "", "{", "no namespace", '"namespace"'),
    ("event", '"example.shop"', '"millrace.shop"', "{", "Millrace's own", "namespace"),
    ("event", '"name": "shop_id"', '"name": "amount"', '"Euros."', "declared twice", "rename"),
    (
        "event",
        '"name": "discount"',
        '"name": "features"',
        '"features"',
        "must not be called `features`",
        "details",
    ),
    ("event", "[\n    {", "[\n    {{", "{{", "not JSON", "column"),
    ("label", '"Return"', '"Order"', "{", "taken by event.avsc", "another name"),
    (
        "label",
        '    {"name": "shop_id", "type": "string", "doc": "Where."},\n',
        "",
        None,
        "lacks `shop_id`",
        '"shop_id"',
    ),
    (
        "label",
        '    {"name": "customer_id", "type": "string", "doc": "Who."},\n',
        "",
        None,
        "event's key",
        '"customer_id"',
    ),
    ("label", '"int"', '"double"', None, "cannot hold a class", "int, long, string"),
]


@pytest.mark.parametrize(
    ("file", "old", "new", "line", "message", "fix"), MISTAKES, ids=[f"{m[0]}-{m[4]}" for m in MISTAKES]
)
def test_a_mistake_is_told_with_file_line_and_fix(
    file: str, old: str, new: str, line: str | None, message: str, fix: str
) -> None:
    name = {"toml": "pipeline.toml", "event": "event.avsc", "label": "label.avsc"}[file]
    assert old in TEXTS[name], "the test breaks nothing"
    text = TEXTS[name].replace(old, new, 1)
    found = [p for p in problems({**TEXTS, name: text}) if message in p.message]
    assert found, [str(p) for p in problems({**TEXTS, name: text})]
    assert fix in found[0].fix, found[0].fix
    if line is not None:
        assert found[0].file == f"shop/{name}"
        assert found[0].line == text[: text.index(line)].count("\n") + 1


# mistakes whose line is not that of the changed text: text just before the place, and the line's own text
ELSEWHERE = [
    (
        'name = "AT_NIGHT"',
        'name = "SPENT"',
        'expression = "hour(order_time) <= 6"\n\n[[feature]]\n',
        "declared twice",
    ),
    (
        'key = "customer_id"\nmax',
        'key = "shop_id"\nmax',
        '[[entity]]\nname = "customer"\n',
        "first entity's key",
    ),
    ('name = "shop"\nkey', 'name = "customer"\nkey', 'key = "customer_id"\n\n[[entity]]\n', "declared twice"),
    ("from = 0.5", "from = 0.0", 'label = "review"\n', "not above"),
    ('label = "review"', 'label = "ship"', "from = 0.0\n\n[[model.decision]]\n", "declared twice"),
    ('entity = "customer"\n', "", 'expression = "hour(order_time) <= 6"\n\n', "`entity` is missing"),
]


@pytest.mark.parametrize(("old", "new", "before", "message"), ELSEWHERE)
def test_the_line_is_where_the_change_is_due(old: str, new: str, before: str, message: str) -> None:
    text = TOML.replace(old, new, 1)
    [found] = [p for p in problems({**TEXTS, "pipeline.toml": text}) if message in p.message]
    assert found.line == text[: text.index(before) + len(before)].count("\n") + 1


@pytest.mark.parametrize(
    "declared",
    [
        "[policy.drift]\nquiet = 200\n\n[policy.retrain]",
        "[policy.drift]\nquiet = 0\n\n[policy.retrain]\nfollow_up = 0",
        '[policy.drift]\nquiet = 0\n\n[policy.retrain]\non = ["labels"]',
        "[policy.drift]\nquiet = 0",
    ],
)
def test_a_short_quiet_is_right_where_nothing_follows_an_alarm_up_behind_it(declared: str) -> None:
    text = TOML.replace("[policy.batch]", f"{declared}\n\n[policy.batch]")
    assert problems({**TEXTS, "pipeline.toml": text}) == []


def test_all_mistakes_are_found_in_one_go() -> None:
    text = TOML.replace('"5m"', '"5"').replace("from = 0.5", 'from = "x"').replace("hidden", "hiden")
    found = problems({**TEXTS, "pipeline.toml": text, "event.avsc": EVENT.replace("Euros.", "")})
    assert [p.file for p in found] == ["shop/pipeline.toml"] * 3 + ["shop/event.avsc"]
    assert [p.line for p in found] == [*sorted(p.line for p in found[:3]), found[3].line]


@pytest.mark.parametrize("missing", ["pipeline.toml", "event.avsc", "label.avsc"])
def test_a_missing_file_is_told(missing: str) -> None:
    found = problems({name: text for name, text in TEXTS.items() if name != missing})
    assert [(p.file, p.message) for p in found] == [(f"shop/{missing}", "the file is missing")]


def test_a_label_file_needs_its_table() -> None:
    toml = TOML[: TOML.index("[label]")] + TOML[TOML.index("[[entity]]") : TOML.index("[source]")]
    toml = toml.replace('aggregate = "rate"\nfield = "label"\n', 'aggregate = "count"\n')
    found = problems({"pipeline.toml": toml, "event.avsc": EVENT, "label.avsc": LABEL})
    assert [p.message for p in found] == ["label.avsc is there but [label] is not"]


def test_folders_are_read_and_found(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    for name, text in TEXTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    assert find_pipeline("shop", tmp_path) == folder
    assert load_pipeline(folder).name == "shop"
    assert find_pipeline("fraud", tmp_path).name == "fraud"
    for name in ("nowhere", "../shop", ""):
        with pytest.raises(Refused, match="there is no pipeline"):
            find_pipeline(name, tmp_path)
    (folder / "event.avsc").write_bytes(b"\xff\xfe")
    with pytest.raises(DeclarationError, match="not UTF-8"):
        load_pipeline(folder)
