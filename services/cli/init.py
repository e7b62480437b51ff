"""`millrace init NAME`: a new pipeline that passes the check, with a small file to replay, or from a file."""

import json
import random
import re
from pathlib import Path
from typing import Annotated, NoReturn

import typer

SAMPLE_ROWS = 500
_CUSTOMERS = 40


def register(app: typer.Typer) -> None:
    """Add the command `init`."""
    app.command("init")(_init)


def _init(
    name: Annotated[str, typer.Argument(help="Lower case letters, digits, - and _.")],
    file: Annotated[
        Path | None, typer.Option("--from", help="A .csv, .csv.gz or .parquet file to declare.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="With --from: the column with the outcome.")] = None,
    time: Annotated[
        str | None, typer.Option(help="With --from: the column with the time; else rows are numbered.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="With --from: the column whose rows stay together.")] = None,
    labels_after: Annotated[
        str | None, typer.Option(help='With --from: how late labels are, as "7d"; else a hundred rows.')
    ] = None,
    root: Annotated[Path, typer.Option(help="Where pipelines are declared.")] = Path("schemas"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Write a new pipeline, schemas/NAME, that runs; edit it from there."""
    from shared.contracts.basics import PIPELINE_NAME
    from shared.contracts.pipeline import parse_pipeline

    folder = root / name
    if not re.fullmatch(PIPELINE_NAME, name) or name == "platform":
        _fail(f"{name!r} cannot name a pipeline; write a lower-case name, such as orders")
    if folder.exists():
        _fail(f"{folder} is there already; choose another name, or remove it first")
    files = pipeline_files(name) if file is None else _from(name, file, label, time, key, labels_after)
    parse_pipeline(files, str(folder), name)
    folder.mkdir(parents=True)
    for each, text in files.items():
        (folder / each).write_text(text, encoding="utf-8")
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "files": sorted(files)}))
        return
    typer.echo(f"{folder} is written. Next:")
    if file is None:
        typer.echo(f"  millrace schemas check {name}")
        typer.echo(f"  millrace replay {folder}/sample.csv --pipeline {name}")
    else:
        typer.echo(f"  millrace replay {file} --pipeline {name} --lockstep 500")
        typer.echo(f"  millrace loop report {name} --plot {name}.png")


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(2)


def _from(
    name: str, file: Path, label: str | None, time: str | None, key: str | None, labels_after: str | None
) -> dict[str, str]:
    from services.cli.from_csv import Wish, files_from
    from shared.contracts.basics import parse_duration

    if label is None:
        _fail(f"say which column of {file} is the outcome: --label COLUMN")
    if labels_after is not None:
        try:
            parse_duration(labels_after)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--labels-after") from error
    return files_from(Wish(name, file, label, time, key, labels_after))


def pipeline_files(name: str) -> dict[str, str]:
    """The files of a new pipeline by file name; the same for the same name."""
    namespace = f"example.{name.replace('-', '_')}"
    return {
        "event.avsc": _EVENT.replace("@NAMESPACE@", namespace),
        "label.avsc": _LABEL.replace("@NAMESPACE@", namespace),
        "pipeline.toml": _PIPELINE.replace("@NAME@", name),
        "sample.csv": sample_csv(SAMPLE_ROWS),
    }


def sample_csv(rows: int, seed: int = 1) -> str:
    """Orders of some customers, of whom a few send much back; seconds count from the epoch in [source].

    >>> print(sample_csv(2))
    order_id,seconds,customer_id,amount,items,returned
    0,174,c28,39.88,4,0
    1,941,c05,11.28,4,0
    <BLANKLINE>
    """
    chance = random.Random(seed)  # noqa: S311 - a sample, not a secret
    lines = ["order_id,seconds,customer_id,amount,items,returned"]
    seconds = 0
    for number in range(rows):
        seconds += 1 + int(chance.expovariate(1 / 1_200))
        customer = int(_CUSTOMERS * chance.random() ** 2)
        amount = round(chance.lognormvariate(3.2, 0.8), 2)
        likely = 0.03 + (0.35 if customer % 8 == 0 else 0.0) + (0.25 if amount > 60 else 0.0)
        returned = int(chance.random() < likely)
        lines.append(f"{number},{seconds},c{customer:02d},{amount},{chance.randint(1, 5)},{returned}")
    return "\n".join(lines) + "\n"


_EVENT = """{
  "type": "record",
  "name": "Order",
  "namespace": "@NAMESPACE@",
  "doc": "An order, as the shop takes it.",
  "fields": [
    {"name": "order_id", "type": "string", "doc": "The order's id, unique for ever."},
    {"name": "order_time", "type": {"type": "long", "logicalType": "timestamp-millis"},
     "doc": "When it was taken, in UTC."},
    {"name": "customer_id", "type": "string", "doc": "Who orders; keys the topic."},
    {"name": "amount", "type": "double", "doc": "The price of all of it, in euros."},
    {"name": "items", "type": "int", "doc": "How many things."}
  ]
}
"""

_LABEL = """{
  "type": "record",
  "name": "Return",
  "namespace": "@NAMESPACE@",
  "doc": "Whether an order came back; known days later.",
  "fields": [
    {"name": "order_id", "type": "string", "doc": "The order's id."},
    {"name": "order_time", "type": {"type": "long", "logicalType": "timestamp-millis"},
     "doc": "The order's own time."},
    {"name": "customer_id", "type": "string", "doc": "Who ordered; keys the topic."},
    {"name": "returned", "type": "int", "doc": "1 if it came back, 0 if not."}
  ]
}
"""

_PIPELINE = """\
# Times are "250ms", "30s", "5m", "1h" or "7d". `millrace schemas check @NAME@` says what is wrong and where.

[pipeline]
name = "@NAME@"
partitions = 4                     # of each topic; cannot be changed later
order = "event"                    # one order over all partitions; "arrival" for none
allowed_lateness = "1h"            # how late an event still sees its whole window

[event]                            # fields of event.avsc
id = "order_id"                    # a string
time = "order_time"                # a timestamp-millis
key = "customer_id"                # a string: events of one key stay in order
max_future = "5m"                  # further ahead of the clock goes to the dead letters
dedup_horizon = "1d"               # an id that comes again within this time is dropped

[[event.rule]]                     # what breaks a rule goes to the dead letters
field = "amount"
min = 0.0
max = 100000.0

[label]                            # fields of label.avsc
id = "order_id"
time = "order_time"                # the order's time, not when it came back
field = "returned"
classes = [0, 1]
positive = 1                       # what the score is the probability of
horizon = "14d"                    # a label is missing after this time
missing = "none"                   # or a class

[[entity]]                         # whose windows; the first one's key is the event's
name = "customer"
key = "customer_id"

[[feature]]                        # of the event alone
name = "AMOUNT"
expression = "log1p(amount)"

[[feature]]
name = "ITEMS"
expression = "items"

[[feature]]
name = "AT_NIGHT"
expression = "hour(order_time) <= 6"

[[feature]]                        # of the entity's events in (t - window, t]
name = "CUSTOMER_ORDERS_1D"
entity = "customer"
aggregate = "count"                # count sum mean min max std last distinct since_last; of labels: rate
window = "1d"

[[feature]]
name = "CUSTOMER_AMOUNT_7D"
entity = "customer"
aggregate = "mean"
field = "amount"
window = "7d"

[[feature]]                        # of labels: as they are known late, the window ends earlier
name = "CUSTOMER_RETURNS_7D"
entity = "customer"
aggregate = "rate"
field = "label"
window = "7d"
delay = "2d"
default = 0.0

[model]
name = "@NAME@"
architecture = "linear"            # or "mlp" with hidden = [32, 16]

[[model.decision]]                 # what a score means to the business, ascending from 0.0
label = "ship"
from = 0.0

[[model.decision]]
label = "review"
from = 0.5

[policy.batch]
max_rows = 1024
max_delay = "5ms"

[source]                           # how `millrace replay` reads a file
time = "seconds"
time_unit = "s"                    # or "ms", or "iso" for texts
epoch = "2025-01-01T00:00:00Z"
order = "order_id"

[source.event]                     # field = "column", "=constant", or "#" for the row's number
order_id = "order_id"
customer_id = "customer_id"
amount = "amount"
items = "items"

[source.label]
returned = "returned"
"""
