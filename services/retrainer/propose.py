"""Proposals on commands.v1: each once, under an id that follows from its trigger's."""

import json
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

from services.retrainer.core.steps import canonical
from services.retrainer.reading import readable
from shared.control.publisher import Publisher
from shared.control.records import Record, Records
from shared.kafka.reader import bounds, open_reader, read_topic
from shared.settings import KafkaSettings

ACTOR = "retrainer"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A packaged candidate, with what the controller judges it by; `at` is an order time in ms."""

    id: str
    model: str
    digest: str
    reason: str
    evidence: bytes
    parameters: dict[str, JsonValue]
    at: int


def proposal_id(run: str) -> str:
    """The command's id: the same run proposes once, however often it is taken up."""
    return f"propose-{run}"


class Proposals(Protocol):
    """Where proposals go."""

    def end(self) -> int:
        """An offset before which no later proposal stands."""
        ...

    def find(self, command: str, start: int) -> Proposal | None:
        """What stands there already under this id, at `start` or behind it."""
        ...

    def send(self, proposal: Proposal) -> None:
        """Write it; it stands when this returns."""
        ...


class KafkaProposals:
    """commands.v1 of one pipeline."""

    def __init__(self, kafka: KafkaSettings, records: Records, publisher: Publisher) -> None:
        self._kafka, self._records, self._publisher = kafka, records, publisher

    def end(self) -> int:
        """The topic's end."""
        reader = open_reader(self._kafka)
        try:
            return bounds(reader, self._records.topic, 0)[1]
        finally:
            reader.close()

    def find(self, command: str, start: int) -> Proposal | None:
        """Read what stands there from `start`, past what is no command."""
        found = (
            proposal_of(record)
            for polled in read_topic(self._kafka, self._records.topic, {0: start})
            for record in readable(self._records, polled)
            if record["id"] == command
        )
        return next(found, None)

    def send(self, proposal: Proposal) -> None:
        """Publish and wait for the broker."""
        self._publisher.write_now([self._records.out([(proposal.model, command_of(proposal))])])


def command_of(proposal: Proposal) -> Record:
    """The proposal as a record of commands.v1."""
    return {
        "id": proposal.id,
        "kind": "propose",
        "model_name": proposal.model,
        "model_version": -1,
        "model_digest": proposal.digest,
        "expected_sequence": -1,
        "actor": ACTOR,
        "reason": proposal.reason,
        "evidence": proposal.evidence,
        "parameters": canonical(proposal.parameters).decode(),
        "at": proposal.at,
    }


def proposal_of(record: Record) -> Proposal:
    """A record of commands.v1 as the proposal that it is."""
    return Proposal(
        record["id"],
        record["model_name"],
        record["model_digest"],
        record["reason"],
        record["evidence"],
        json.loads(record["parameters"]),
        record["at"],
    )
