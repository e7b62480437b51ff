"""What people ask of the controller and what they are told: commands and their verdicts, states and history."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from confluent_kafka import KafkaError, TopicPartition

from schemas import platform_schema
from services.controller.core.state import DECLINED, OBEYED, TRANSITION, Entry, State
from services.controller.journal import read_entries, read_state
from services.controller.reading import entry_of, rows_of
from shared.control.publisher import Publisher
from shared.control.records import Record, Records
from shared.errors import Refused, Retry
from shared.kafka.columns import to_polled
from shared.kafka.reader import bounds, open_reader
from shared.models.signing import KeyFolder
from shared.runtime.entry import Start
from shared.runtime.polled import Polled
from shared.runtime.tables import Table
from shared.topics import AUDIT, COMMANDS, MODELS, RUNS

END_OF_RUN = frozenset({"done", "failed", "skipped"})


@dataclass(frozen=True, slots=True)
class Request:
    """A command before it is sent; -1 stands for any version and for any sequence."""

    kind: str
    version: int = -1
    actor: str = ""
    reason: str = ""
    expected_sequence: int = -1
    id: str = field(default_factory=lambda: str(uuid4()))


class Governance:
    """The controller of one pipeline, as the log shows it and as commands reach it."""

    def __init__(self, start: Start) -> None:
        self._start, self.pipeline = start, start.pipeline
        name, ids = start.pipeline.name, start.schema_ids
        self._audit = Table.of(AUDIT.of(name), ids[AUDIT.of(name)], platform_schema("audit"))
        self._models = Table.of(MODELS.of(name), ids[MODELS.of(name)], platform_schema("model"))

    def entries(self) -> list[Entry]:
        """Every decision so far, in order."""
        return read_entries(self._start.platform.kafka, self._audit, self.pipeline.model.name)

    def state(self) -> State:
        """Every version as it is now."""
        trusted = KeyFolder.of().trusted()
        kafka = self._start.platform.kafka
        return read_state(kafka, self._audit, self._models, self.pipeline.model.name, trusted)

    def send(self, request: Request, timeout_s: float) -> list[Entry]:
        """Send a command and wait for what the controller decides on it; its verdict comes last.

        Raises:
            Refused: the controller says no, and why.
            Retry: it has not answered in time; the command stands and will be answered.
        """
        found: list[Entry] = []
        for entry in self._answers(self._audit.topic, self._entries, request, timeout_s):
            if entry.detail.get("command") == request.id:
                found.append(entry)
                if entry.kind == DECLINED:
                    raise Refused(f"{entry.reason}: {entry.detail.get('text', '')}")
                if entry.kind == OBEYED:
                    return found
        raise Retry(
            f"the controller has not answered within {timeout_s:.0f} s; command {request.id} stands, "
            "and is obeyed when the controller comes to it"
        )

    def train(self, request: Request, timeout_s: float) -> list[Record]:
        """Send a `train` command; with a timeout above 0, wait for the end of its run and give its steps."""
        if timeout_s <= 0:
            self._send(request)
            return []
        records = Records.of(RUNS, self.pipeline.name, self._start.schema_ids)
        steps: list[Record] = []
        for record in self._answers(records.topic, records.read, request, timeout_s):
            if record["id"] == request.id:
                steps.append(record)
                if record["step"] in END_OF_RUN:
                    return steps
        reached = steps[-1]["step"] if steps else "nothing yet"
        raise Retry(f"the retrainer has come to {reached} within {timeout_s:.0f} s; the run goes on")

    def verdict(self, proposal: str, timeout_s: float) -> Entry | None:
        """What the controller said to the proposal of that id; None where it says nothing in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            for entry in self.entries():
                if entry.kind in (OBEYED, DECLINED) and entry.detail.get("command") == proposal:
                    return entry
            if time.monotonic() > deadline:
                return None
            time.sleep(0.2)

    def _entries(self, polled: Polled) -> list[Entry]:
        model = self.pipeline.model.name
        found = (entry_of(read, model) for read in rows_of(self._audit, polled))
        return [entry for entry in found if entry is not None]

    def _send(self, request: Request) -> None:
        records = Records.of(COMMANDS, self.pipeline.name, self._start.schema_ids)
        record = {
            "id": request.id,
            "kind": request.kind,
            "model_name": self.pipeline.model.name,
            "model_version": request.version,
            "expected_sequence": request.expected_sequence,
            "actor": request.actor,
            "reason": request.reason,
            "evidence": b"",
            "at": time.time_ns() // 1_000_000,
        }
        Publisher(self._start.platform.kafka, COMMANDS.compression).write_now(
            [records.out([(self.pipeline.model.name, record)])]
        )

    def _answers(
        self, topic: str, decode: Callable[[Polled], list[Any]], request: Request, timeout_s: float
    ) -> Iterator[Any]:
        """Send, and give every record that comes on `topic` from then on, until the time is over."""
        reader = open_reader(self._start.platform.kafka)
        try:
            end = bounds(reader, topic, 0)[1]
            reader.assign([TopicPartition(topic, 0, end)])
            self._send(request)
            deadline = time.monotonic() + timeout_s
            while time.monotonic() < deadline:
                messages = reader.consume(500, timeout=0.1)
                errors = [m.error() for m in messages if m.error() is not None]
                if any(error.code() != KafkaError._PARTITION_EOF for error in errors if error is not None):
                    raise Retry(f"{topic}: {errors[0]}")
                for polled in to_polled([m for m in messages if m.error() is None]):
                    yield from decode(polled)
        finally:
            reader.close()


def instant(ms: int) -> str | None:
    """Milliseconds as ISO 8601 in UTC; None for a time that is not known."""
    return None if ms < 0 else datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="milliseconds")


def row_of(entry: Entry) -> dict[str, Any]:
    """A decision as JSON."""
    return {
        "kind": entry.kind,
        "sequence": entry.sequence,
        "version": entry.version,
        "digest": entry.digest,
        "previous": entry.previous,
        "state": entry.state,
        "actor": entry.actor,
        "reason": entry.reason,
        "at": instant(entry.at),
        "labeled_sequence": entry.labeled_sequence,
        "order_time": instant(int(entry.detail.get("order_time", -1))),
        "evidence": entry.evidence,
        "command_offset": entry.command_offset,
        "detail": dict(entry.detail),
    }


def version_rows(state: State) -> list[dict[str, Any]]:
    """Every version as JSON, oldest first."""
    return [
        {
            "version": version.number,
            "state": version.state,
            "digest": version.digest,
            "since": version.since,
            "since_time": instant(version.order_time),
            "reason": version.reason,
            "predecessor": version.predecessor,
            "evidence": version.evidence,
        }
        for version in (state.versions[number] for number in sorted(state.versions))
    ]


def line_of(entry: Entry) -> str:
    """A decision for people."""
    where = f"{entry.labeled_sequence:>9}" if entry.labeled_sequence >= 0 else " " * 9
    if entry.kind == TRANSITION:
        what = f"version {entry.version}: {entry.previous or 'new'} → {entry.state}"
    else:
        what = entry.kind if entry.version < 0 else f"version {entry.version}: {entry.kind}"
    return f"{instant(entry.at)}  {where}  {what}  {entry.reason}  ({entry.actor})"
