"""When the word on a skipped batch goes out: with the transaction that passes it, and not before."""

from dataclasses import replace

import pytest

from services.cli.letters import Letter, waiting
from shared.kafka.unreadable import Unreadable
from shared.runtime.incidents import UNREADABLE, Incidents, letter

BATCH = Unreadable("p.events.v1", 2, 10, 15, "Invalid compressed data")
# name: what is reached, with the batch skipped when everything before 10 was read -> the offset told, or None
CASES: dict[str, tuple[dict[str, int], int | None]] = {
    "nothing released": ({}, None),
    "rows before it wait": ({"p.events.v1": 9}, None),
    "another topic has passed": ({"p.events.v1": 9, "p.labels.v1": 99}, None),
    "all before it is released": ({"p.events.v1": 10}, 15),
    "rows behind it are released": ({"p.events.v1": 40}, 40),
}


@pytest.mark.parametrize("case", CASES)
def test_an_incident_goes_with_the_offsets_that_pass_it(case: str) -> None:
    reached, told = CASES[case]
    incidents = Incidents()
    incidents.add(BATCH, after=10)
    due = incidents.due(reached)
    if told is None:
        assert due is None
        assert incidents.waiting
        return
    assert due is not None
    assert due.next_offsets == {"p.events.v1": told}
    assert [(each.reason, each.partition, each.offset) for each in due.dead] == [(UNREADABLE, 2, 10)]
    assert "offsets 10 to 14 of p.events.v1/2" in due.dead[0].message
    assert incidents.due(reached) is None


def test_batches_that_stand_behind_each_other_go_together() -> None:
    incidents = Incidents()
    incidents.add(BATCH, after=10)
    incidents.add(Unreadable("p.events.v1", 2, 15, 16, "again"), after=15)
    due = incidents.due({"p.events.v1": 10})
    assert due is not None
    assert [each.offset for each in due.dead] == [10, 15]
    assert due.next_offsets == {"p.events.v1": 16}


def test_what_was_never_read_is_not_sent_again() -> None:
    told = letter(BATCH)
    read = Letter(0, "ingest", "avro.eof", "", "", "p.events.v1", 2, 9, 1, b"k", b"v", [], 1)
    skipped = replace(read, number=1, reason=told.reason, offset=told.offset, key=None, value=None)
    assert waiting([read, skipped], None) == [read]


def test_a_batch_at_the_very_beginning_waits_for_nothing() -> None:
    incidents = Incidents()
    incidents.add(Unreadable("p.events.v1", 0, 0, 3, "broken"), after=0)
    due = incidents.due({})
    assert due is not None
    assert due.next_offsets == {"p.events.v1": 3}
