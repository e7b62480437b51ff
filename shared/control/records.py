"""The platform's own records (alarms, runs, commands, profiles) as dicts: few, so the reference codec will do."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastavro import parse_schema, schemaless_reader, schemaless_writer

from schemas import platform_schema
from shared.codec.batch import Strings
from shared.codec.frame import FRAME_BYTES, frame_prefix
from shared.errors import Fatal
from shared.runtime.polled import Polled
from shared.runtime.unit import Out
from shared.topics import Topic

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Records:
    """A topic with one of the platform's schemas: its name on the broker, its schema's id, and the codec."""

    topic: str
    schema_id: int
    schema: Any

    @staticmethod
    def of(topic: Topic, pipeline: str, ids: Mapping[str, int]) -> "Records":
        """The records of `topic` (a `platform/...` schema) in `pipeline`; `ids` as `prepare` found them."""
        origin, _, name = topic.schema.partition("/")
        if origin != "platform":
            raise ValueError(f"{topic.name} has a {origin} schema; read it with a Table")
        on_broker = topic.of(pipeline)
        return Records(on_broker, ids[on_broker], parse_schema(plain(platform_schema(name))))

    def read(self, polled: Polled) -> list[Record]:
        """One dict a record; times are milliseconds.

        Raises:
            Fatal: a record is not of this schema.
        """
        return [
            self.decode(value, int(offset))
            for value, offset in zip(polled.values.to_list(), polled.offsets, strict=True)
        ]

    def decode(self, value: bytes, offset: int = -1) -> Record:
        """One record; Fatal where it is not of this schema."""
        if value[:FRAME_BYTES] == frame_prefix(self.schema_id):
            buffer = io.BytesIO(value[FRAME_BYTES:])
            try:
                found = schemaless_reader(buffer, self.schema, None)
            except (EOFError, IndexError, ValueError, OverflowError, KeyError, TypeError):
                found = None
            if isinstance(found, dict) and not buffer.read(1):
                return found
        raise Fatal(
            f"{self.topic} offset {offset} is not of schema {self.schema_id}: "
            "only Millrace writes to this topic; see who else does"
        )

    def encode(self, record: Record) -> bytes:
        """The framed value of one record; fields with defaults may be left out."""
        buffer = io.BytesIO()
        buffer.write(frame_prefix(self.schema_id))
        schemaless_writer(buffer, self.schema, record)
        return buffer.getvalue()

    def out(self, keyed: Sequence[tuple[str, Record]]) -> Out:
        """The records behind their keys, to be written in this order."""
        keys = Strings.of([key.encode() for key, _ in keyed])
        return Out(self.topic, keys, Strings.of([self.encode(record) for _, record in keyed]))


def plain(schema: Any) -> Any:
    """`schema` without logical types: times stay whole milliseconds."""
    if isinstance(schema, dict):
        return {name: plain(part) for name, part in schema.items() if name != "logicalType"}
    if isinstance(schema, list):
        return [plain(part) for part in schema]
    return schema
