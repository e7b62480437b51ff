"""What a record costs in the codec, beside fastavro and polars in the same run.

`python -m tests.bench.bench_codec` prints microseconds a row (the best of several repetitions) and, for a
schema of 20 columns, microseconds a call with 10 rows.
"""

import io
import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import fastavro
import numpy as np
import polars

from shared.codec.batch import Batch, Strings
from shared.codec.interner import Interner
from shared.codec.program import compile_program

_CATEGORY = {"type": "enum", "name": "Category", "symbols": ["food", "fuel", "travel"]}
_TYPES: dict[str, Any] = {
    "transaction_id": "string",
    "tx_time": {"type": "long", "logicalType": "timestamp-millis"},
    "customer_id": "string",
    "terminal_id": "string",
    "tx_amount": "double",
    "category": _CATEGORY,
    "attempts": "int",
    "online": "boolean",
    "discount": ["null", "double"],
    "note": ["null", "string"],
}
_BLOCK_MARK = bytes(range(16))


def payment_schema() -> dict[str, Any]:
    """A record of ten fields, as a payment has them."""
    return {
        "type": "record",
        "name": "Payment",
        "fields": [{"name": name, "type": kind} for name, kind in _TYPES.items()],
    }


def payments(rows: int) -> list[dict[str, Any]]:
    """Made-up payments, the same ones each time."""
    rng = random.Random(11)
    return [
        {
            "transaction_id": f"tx-{number:010d}",
            "tx_time": 1_700_000_000_000 + 137 * number,
            "customer_id": f"c{rng.randrange(5000):05d}",
            "terminal_id": f"t{rng.randrange(10000):05d}",
            "tx_amount": rng.expovariate(0.02),
            "category": rng.choice(_CATEGORY["symbols"]),
            "attempts": rng.randrange(5),
            "online": rng.random() < 0.5,
            "discount": rng.choice([None, 1.5]),
            "note": rng.choice([None, "rénové"]),
        }
        for number in range(rows)
    ]


def best_us(work: Callable[[], object], repeat: int = 30) -> float:
    """The least wall time of one call in microseconds."""
    least = float("inf")
    for _ in range(repeat):
        begin = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - begin)
    return least * 1e6


def container(schema: dict[str, Any], data: Strings) -> bytes:
    """An Avro file of one block around datums that exist, for polars to read."""
    out = io.BytesIO()
    fastavro.writer(out, schema, [], sync_marker=_BLOCK_MARK)
    body = data.compact().data.tobytes()
    for number in (len(data), len(body)):
        fastavro.schemaless_writer(out, "long", number)
    return out.getvalue() + body + _BLOCK_MARK


def codec_figures(rows: int) -> dict[str, float]:
    """Microseconds a row for a batch of `rows` payments."""
    schema, records = payment_schema(), payments(rows)
    parsed = fastavro.parse_schema(schema)
    program = compile_program(schema)
    data = Strings.of([_written(parsed, record) for record in records])
    datums, batch = data.to_list(), program.decode(data).batch
    program.encode(batch)
    file = container(schema, data)
    if len(polars.read_avro(io.BytesIO(file))) != rows:
        raise ValueError("polars does not read the container that was made for it")
    figures = {
        "millrace decode": best_us(lambda: program.decode(data)),
        "millrace encode": best_us(lambda: program.encode(batch, b"\0\0\0\0\1")),
        "polars.read_avro": best_us(lambda: polars.read_avro(io.BytesIO(file))),
        "fastavro decode": best_us(lambda: [_read(parsed, datum) for datum in datums], 5),
        "fastavro encode": best_us(lambda: [_written(parsed, record) for record in records], 5),
    }
    return {name: cost / rows for name, cost in figures.items()}


def call_figures() -> dict[str, float]:
    """Microseconds a call: 20 columns, 10 rows."""
    kinds = ["string", "long", "double", "boolean"] * 5
    fields = [{"name": f"f{i}", "type": ["null", kind] if i % 3 else kind} for i, kind in enumerate(kinds)]
    program = compile_program({"type": "record", "name": "Wide", "fields": fields})
    values: dict[str, Any] = {
        "string": Strings.repeated(b"abcdefgh", 10),
        "long": np.arange(10),
        "double": np.zeros(10),
        "boolean": np.zeros(10, np.bool_),
    }
    batch = Batch.of({field["name"]: values[kind] for field, kind in zip(fields, kinds, strict=True)})  # type: ignore[misc]
    data = program.encode(batch)
    return {
        "decode call": best_us(lambda: program.decode(data), 500),
        "encode call": best_us(lambda: program.encode(batch), 500),
    }


def interner_figures(keys: int) -> dict[str, float]:
    """Microseconds a key of 20 bytes, in batches of 5,000 of `keys` known ones."""
    rng = random.Random(7)
    known = Strings.of([rng.randbytes(10).hex().encode() for _ in range(keys)])
    asked = known.take(np.random.default_rng(7).integers(0, keys, 5000)).compact()
    table = Interner()
    table.intern(known)
    return {
        "interner lookup": best_us(lambda: table.lookup(asked)) / 5000,
        "interner intern": best_us(lambda: table.intern(asked)) / 5000,
        "interner fill": best_us(lambda: Interner().intern(known), 3) / keys,
    }


def _written(schema: Any, record: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    return out.getvalue()


def _read(schema: Any, datum: bytes) -> object:
    return fastavro.schemaless_reader(io.BytesIO(datum), schema, None)


def figures() -> dict[str, float]:
    """Everything, by name."""
    made = {
        f"{name}, {rows} rows": cost for rows in (1000, 5000) for name, cost in codec_figures(rows).items()
    }
    return {**made, **call_figures(), **interner_figures(100_000)}


if __name__ == "__main__":
    if "--json" in sys.argv:
        print(json.dumps(figures()))
    else:
        for label, cost in figures().items():
            print(f"{label:32}{cost:10.3f} µs")
