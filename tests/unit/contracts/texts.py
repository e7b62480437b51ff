"""A small pipeline as texts, for tests to break in one place each."""

from shared.contracts.pipeline import Pipeline, parse_pipeline
from shared.errors import DeclarationError, Problem

EVENT = """{
  "type": "record",
  "name": "Order",
  "namespace": "example.shop",
  "doc": "An order.",
  "fields": [
    {"name": "order_id", "type": "string", "doc": "Its id."},
    {"name": "order_time", "type": {"type": "long", "logicalType": "timestamp-millis"}, "doc": "When."},
    {"name": "customer_id", "type": "string", "doc": "Who."},
    {"name": "shop_id", "type": "string", "doc": "Where."},
    {"name": "amount", "type": "double", "doc": "Euros."},
    {"name": "discount", "type": ["null", "double"], "doc": "Euros, if any.", "default": null}
  ]
}
"""
LABEL = """{
  "type": "record",
  "name": "Return",
  "namespace": "example.shop",
  "doc": "Whether it came back.",
  "fields": [
    {"name": "order_id", "type": "string", "doc": "Its id."},
    {"name": "order_time", "type": {"type": "long", "logicalType": "timestamp-millis"}, "doc": "When."},
    {"name": "customer_id", "type": "string", "doc": "Who."},
    {"name": "shop_id", "type": "string", "doc": "Where."},
    {"name": "returned", "type": "int", "doc": "1 if it came back."}
  ]
}
"""
TOML = """[pipeline]
name = "shop"
partitions = 2
order = "event"
allowed_lateness = "1h"

[event]
id = "order_id"
time = "order_time"
key = "customer_id"
max_future = "5m"
dedup_horizon = "1d"

[[event.rule]]
field = "amount"
min = 0.0
max = 1000.0

[label]
id = "order_id"
time = "order_time"
field = "returned"
classes = [0, 1]
positive = 1
horizon = "7d"
missing = "none"

[[entity]]
name = "customer"
key = "customer_id"

[[entity]]
name = "shop"
key = "shop_id"

[[feature]]
name = "AT_NIGHT"
expression = "hour(order_time) <= 6"

[[feature]]
name = "SPENT"
entity = "customer"
aggregate = "sum"
field = "amount"
window = "7d"

[[feature]]
name = "RISK"
entity = "shop"
aggregate = "rate"
field = "label"
window = "7d"
delay = "2d"

[model]
name = "shop"
architecture = "mlp"
hidden = [8]

[[model.decision]]
label = "ship"
from = 0.0

[[model.decision]]
label = "review"
from = 0.5

[policy.batch]
max_rows = 512
max_delay = "5ms"

[source]
time = "when"
time_unit = "s"
epoch = "2025-01-01T00:00:00Z"
order = "n"

[source.event]
order_id = "#"
customer_id = "customer"
shop_id = "=main"
amount = "amount"

[source.label]
returned = "returned"
"""
TEXTS = {"pipeline.toml": TOML, "event.avsc": EVENT, "label.avsc": LABEL}


def parse(**changes: str) -> Pipeline:
    """The small pipeline; `toml`, `event` and `label` replace its texts."""
    names = {"toml": "pipeline.toml", "event": "event.avsc", "label": "label.avsc"}
    return parse_pipeline({**TEXTS, **{names[k]: text for k, text in changes.items()}}, "shop", "shop")


def problems(texts: dict[str, str]) -> list[Problem]:
    """What is wrong with these texts; empty when nothing is."""
    try:
        parse_pipeline(texts, "shop", "shop")
    except DeclarationError as error:
        return list(error.problems)
    return []
