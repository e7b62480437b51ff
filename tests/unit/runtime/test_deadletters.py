"""Dead letters keep the record whole and count attempts; a forged header cannot make them count wrong."""

import io

import pytest
from fastavro import parse_schema, schemaless_reader

from schemas import platform_schema
from shared.errors import FuseBlown
from shared.runtime.deadletters import ATTEMPT_HEADER, DeadLetterWriter
from shared.runtime.fuse import Fuse
from shared.runtime.polled import Headers
from shared.runtime.unit import DeadLetter

SCHEMA = platform_schema("dead_letter")


def written(headers: Headers | None) -> dict[str, object]:
    letter = DeadLetter("avro.eof", "cut short", "in", 2, 7, 99, b"k", b"\x00v", headers)
    (out,) = DeadLetterWriter("ingest", "p.dlq.v1", SCHEMA, b"PRE").outs([letter])
    (value,) = out.values.to_list()
    assert value.startswith(b"PRE")
    found = schemaless_reader(io.BytesIO(value[3:]), parse_schema(SCHEMA), None)
    assert isinstance(found, dict)
    return found


def test_letter_is_the_whole_record() -> None:
    found = written([("h", b"1"), ("h", None)])
    place = {name: found[name] for name in ("topic", "partition", "offset", "timestamp", "key", "value")}
    assert place == {
        "topic": "in",
        "partition": 2,
        "offset": 7,
        "timestamp": 99,
        "key": b"k",
        "value": b"\x00v",
    }
    assert found["headers"] == [{"name": "h", "value": b"1"}, {"name": "h", "value": None}]
    assert (found["reason"], found["service"], found["attempt"]) == ("avro.eof", "ingest", 1)


@pytest.mark.parametrize(
    ("value", "attempt"), [(b"1", 2), (b"41", 42), (b"x", 1), (b"-3", 1), (b"9" * 30, 1), (None, 1)]
)
def test_attempts_are_counted_from_the_redrive_header(value: bytes | None, attempt: int) -> None:
    assert written([(ATTEMPT_HEADER, value)])["attempt"] == attempt


def test_nothing_dead_is_nothing_written() -> None:
    assert DeadLetterWriter("ingest", "t", SCHEMA, b"").outs([]) == []


def test_fuse_blows_at_the_limit_and_not_before() -> None:
    fuse = Fuse(limit=10)
    fuse.watch(good=0, bad=9)
    fuse.watch(good=1, bad=9)
    with pytest.raises(FuseBlown, match="10 bad records in a row"):
        fuse.watch(good=0, bad=1)
