"""Each way in which a datum can be wrong has its reason, alone and among good rows."""

import itertools
import time
from typing import Any

import numpy as np
import pytest

from shared.codec.batch import Strings
from shared.codec.ops import STATUS_REASONS
from shared.codec.program import compile_program
from shared.codec.reference import Reference, Subfield
from shared.errors import BadRecord
from tests.unit.codec.support import reasons, record

ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
FIXED = {"type": "fixed", "name": "F", "size": 3}
LONGS = {"type": "array", "items": "long"}
TEXTS = {"type": "map", "values": "string"}
HUGE = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"  # 2**63 - 1
LEAST = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"  # -2**63

BAD = [
    ("long", b"", "avro.eof"),
    ("long", b"\x80", "avro.eof"),
    ("long", b"\x80" * 9, "avro.eof"),
    ("long", b"\x80" * 10, "avro.varint"),
    ("long", b"\x80" * 11, "avro.varint"),
    ("long", b"\x80" * 100_000, "avro.varint"),
    ("long", b"\x80" * 10 + b"\x00", "avro.varint"),
    ("long", b"\xff" * 9 + b"\x02", "avro.varint"),
    ("long", b"\x02\x00", "avro.trailing"),
    ("int", b"\x80\x80\x80\x80\x10", "avro.range"),
    ("int", b"\x81\x80\x80\x80\x10", "avro.range"),
    ("int", HUGE, "avro.range"),
    ("boolean", b"", "avro.eof"),
    ("boolean", b"\x02", "avro.boolean"),
    ("boolean", b"\x07", "avro.boolean"),
    ("float", b"\0" * 3, "avro.eof"),
    ("double", b"\0" * 7, "avro.eof"),
    ("string", b"\x04a", "avro.eof"),
    ("string", b"\x01", "avro.length"),
    ("string", HUGE, "avro.length"),
    ("string", LEAST, "avro.length"),
    ("bytes", b"\x80\x80\x80\x80\x10", "avro.length"),
    ("bytes", b"\xfe\xff\xff\xff\x0f", "avro.eof"),
    ("string", b"\x02\xff", "avro.utf8"),
    ("string", b"\x06\xed\xa0\x80", "avro.utf8"),
    ("string", b"\x02\xc3", "avro.utf8"),
    (ENUM, b"\x01", "avro.enum"),
    (ENUM, b"\x04", "avro.enum"),
    (FIXED, b"ab", "avro.eof"),
    (["null", "long"], b"\x01", "avro.union"),
    (["null", "long"], b"\x04", "avro.union"),
    (["long", "string", "null"], b"\x06", "avro.union"),
    (["long", "string", "null"], b"\x01", "avro.union"),
    (LONGS, b"\x02\x02", "avro.eof"),
    (LONGS, b"\x04\x02", "avro.eof"),
    (LONGS, b"\x80\x80\x80\x80\x80\x80\x10", "avro.length"),
    (LONGS, LEAST + b"\x02\x00", "avro.length"),
    (LONGS, b"\x01\x04\x02\x00", "avro.length"),
    (LONGS, b"\x01\x00\x02\x00", "avro.length"),
    (LONGS, b"\x01\x01\x02\x00", "avro.length"),
    (TEXTS, b"\x02\x02\xff\x02a\x00", "avro.utf8"),
    (TEXTS, b"\x02\x02k\x02\xff\x00", "avro.utf8"),
    ({"type": "array", "items": ["null", ENUM]}, b"\x02\x02\x05\x00", "avro.enum"),
]


@pytest.mark.parametrize(("kind", "datum", "reason"), BAD)
def test_a_bad_row_has_its_reason_and_stays_alone(kind: Any, datum: bytes, reason: str) -> None:
    schema = record(x=kind)
    good = {"long": b"\x06", "string": b"\x06abc"}.get(str(kind))
    rows = [datum] if good is None else [good, datum, good]
    expected = [reason] if good is None else ["ok", reason, "ok"]
    assert reasons(compile_program(schema), rows) == expected
    with pytest.raises(BadRecord) as caught:
        Reference(schema).decode(datum)
    assert caught.value.reason == reason


def test_a_row_never_reads_its_neighbours_bytes() -> None:
    """The datum ends within a buffer that would go on well."""
    program = compile_program(record(x="string"))
    rows = Strings(np.frombuffer(b"\x04ab", np.uint8), np.array([0, 0]), np.array([2, 3]))
    decoded = program.decode(rows)
    assert decoded.status.tolist() == [1, 0]
    assert decoded.batch.take(decoded.status == 0)["x"].strings.to_list() == [b"ab"]


def test_a_text_is_not_completed_by_what_follows_it() -> None:
    schema = record(x="string", y="bytes")
    assert reasons(compile_program(schema), [b"\x02\xc3\x02\xa9", b"\x04\xc3\xa9\x00"]) == ["avro.utf8", "ok"]
    neighbours = np.frombuffer(b"\x02\xc3\xa9", np.uint8)
    decoded = compile_program(record(x="string")).decode(Strings(neighbours, np.array([0]), np.array([2])))
    assert STATUS_REASONS[decoded.status[0]] == "avro.utf8"


def test_views_beyond_the_buffer_are_the_callers_error() -> None:
    program = compile_program(record(x="long"))
    for start, length in [(0, 5), (-1, 1), (0, -1), (9, 0)]:
        with pytest.raises(ValueError, match="row 0 points outside"):
            program.decode(Strings(np.zeros(4, np.uint8), np.array([start]), np.array([length])))


@pytest.mark.parametrize(
    ("kind", "datum", "value"),
    [
        ("long", b"\x80\x00", 0),
        ("long", LEAST, -(2**63)),
        ("long", HUGE, 2**63 - 1),
        ("int", b"\xfe\xff\xff\xff\x0f", 2**31 - 1),
        ("int", b"\xff\xff\xff\xff\x0f", -(2**31)),
        ("float", b"\x00\x00\xc0\x3f", 1.5),
        ("boolean", b"\x01", True),
    ],
)
def test_the_edges_are_good(kind: str, datum: bytes, value: object) -> None:
    decoded = compile_program(record(x=kind)).decode(Strings.of([datum]))
    assert decoded.status.tolist() == [0]
    assert decoded.batch["x"].array.tolist() == [value]


@pytest.mark.parametrize(
    "blocks",
    [
        b"\x00",
        b"\x04\x02\x04\x00",
        b"\x02\x02\x02\x04\x00",
        b"\x03\x04\x02\x04\x00",
        b"\x01\x02\x02\x02\x04\x00",
    ],
)
def test_blocks_are_kept_as_they_were_written(blocks: bytes) -> None:
    program = compile_program(record(x=LONGS, y="long"))
    decoded = program.decode(Strings.of([blocks + b"\x0e"]))
    assert decoded.status.tolist() == [0]
    assert decoded.batch["x"].strings.to_list() == [blocks]
    assert decoded.batch["y"].array.tolist() == [7]
    assert Subfield(LONGS).decode(blocks) in ([], [1, 2])
    assert program.encode(decoded.batch).to_list() == [blocks + b"\x0e"]


def test_utf8_is_what_python_says_it_is() -> None:
    """All combinations of up to four bytes at the borders of the ranges, behind texts of many lengths."""
    borders = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF]
    borders += [0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF]
    texts = [bytes(t) for n in range(1, 4) for t in itertools.product(borders, repeat=n)]
    texts += [bytes((a, *t)) for a in (0xF0, 0xF1, 0xF4, 0xF5) for t in itertools.product(borders, repeat=3)]
    texts = [b"a" * (i % 10) + text for i, text in enumerate(texts)]
    decoded = compile_program(record(x="string")).decode(
        Strings.of([bytes([2 * len(text)]) + text for text in texts])
    )
    assert [status == 0 for status in decoded.status] == [_is_utf8(text) for text in texts]


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_a_bomb_costs_nothing() -> None:
    """Counts and lengths of 2**40 and a megabyte of nested blocks: no memory by their word, no time lost."""
    deep = record(x={"type": "array", "items": {"type": "array", "items": {"type": "map", "values": "null"}}})
    bombs = [b"\x80\x80\x80\x80\x80\x80\x10", b"\x02" * 1_000_000, b"\x02\x02\x80\x80\x80\x80\x80\x80\x10"]
    program = compile_program(deep)
    program.decode(Strings.of([b"\x00"]))
    begin = time.perf_counter()
    assert "ok" not in reasons(program, bombs)
    assert time.perf_counter() - begin < 1


def test_no_rows_are_no_rows() -> None:
    program = compile_program(record(x="long", y=["null", "string"]))
    decoded = program.decode(Strings.of([]))
    assert (decoded.batch.rows, len(decoded.status), len(program.encode(decoded.batch))) == (0, 0, 0)
