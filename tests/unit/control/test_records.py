"""The platform's records as dicts."""

import numpy as np
import pytest

from shared.codec.batch import Strings
from shared.control.records import Records
from shared.errors import Fatal
from shared.runtime.polled import Polled
from shared.topics import ALL, COMMANDS, LABELED, Topic

COMMAND = {
    "id": "c",
    "kind": "train",
    "model_name": "m",
    "actor": "a",
    "reason": "r",
    "at": 5,
    "evidence": b"\x00\xff",
}


def records(topic: Topic = COMMANDS) -> Records:
    return Records.of(topic, "p", {topic.of("p"): 12})


def polled(values: list[bytes]) -> Polled:
    none = np.zeros(len(values), np.bool_)
    offsets = np.arange(len(values))
    return Polled("t", 0, Strings.of([b""] * len(values)), none, Strings.of(values), none, offsets, offsets)


def test_a_record_comes_back_whole_times_in_milliseconds() -> None:
    own = records()
    out = own.out([("m", COMMAND), ("m", {**COMMAND, "at": 6})])
    assert out.topic == "p.commands.v1"
    assert out.keys is not None
    assert out.keys.to_list() == [b"m", b"m"]
    first, second = own.read(polled(out.values.to_list()))
    assert {name: first[name] for name in COMMAND} == COMMAND
    assert (first["expected_sequence"], second["at"]) == (-1, 6)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x00\x00\x00\x00\x0d" + records().encode(COMMAND)[5:],
        records().encode(COMMAND)[:-1],
        records().encode(COMMAND) + b"x",
    ],
    ids=["empty", "other schema", "cut short", "too long"],
)
def test_what_is_not_of_the_schema_is_fatal(value: bytes) -> None:
    with pytest.raises(Fatal, match="only Millrace writes"):
        records().decode(value, 3)


@pytest.mark.parametrize(
    "topic", [each for each in ALL if each.schema.startswith("platform/")], ids=lambda t: t.name
)
def test_every_topic_of_the_platform_can_be_read(topic: Topic) -> None:
    assert Records.of(topic, "p", {topic.of("p"): 1}).topic == topic.of("p")


def test_a_generated_schema_wants_a_table() -> None:
    with pytest.raises(ValueError, match="Table"):
        records(LABELED)
