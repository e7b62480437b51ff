"""Dead letters to records of `dlq.v1`: the original bytes and why."""

import io
from collections.abc import Sequence

from fastavro import parse_schema, schemaless_writer

from shared.codec.batch import Strings
from shared.runtime.unit import DeadLetter, Out

# Set by `millrace dlq redrive` on what it sends again.
ATTEMPT_HEADER = "millrace-attempt"


class DeadLetterWriter:
    """Encodes dead letters of one service; `prefix` is the frame of the registered schema."""

    def __init__(self, service: str, topic: str, schema: dict[str, object], prefix: bytes) -> None:
        self._service = service
        self._topic = topic
        self._schema = parse_schema(schema)
        self._prefix = prefix

    def outs(self, dead: Sequence[DeadLetter]) -> list[Out]:
        """One output with a record a letter, keyed as the original was."""
        if not dead:
            return []
        values = Strings.of([self._value(letter) for letter in dead])
        return [Out(self._topic, Strings.of([letter.key or b"" for letter in dead]), values)]

    def _value(self, letter: DeadLetter) -> bytes:
        buffer = io.BytesIO()
        buffer.write(self._prefix)
        headers = [{"name": name, "value": value} for name, value in letter.headers or ()]
        record = {
            "service": self._service,
            "reason": letter.reason,
            "error_class": letter.error_class,
            "message": letter.message,
            "topic": letter.topic,
            "partition": letter.partition,
            "offset": letter.offset,
            "timestamp": letter.timestamp,
            "key": letter.key,
            "value": letter.value,
            "headers": headers,
            "attempt": 1 + _attempts(letter),
        }
        schemaless_writer(buffer, self._schema, record)
        return buffer.getvalue()


def _attempts(letter: DeadLetter) -> int:
    for name, value in letter.headers or ():
        if name == ATTEMPT_HEADER and value is not None and value.isdigit() and len(value) < 6:
            return int(value)
    return 0
