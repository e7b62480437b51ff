"""Why a record is turned away: bounded codes, and a sentence for people that says what to do next."""

from collections.abc import Mapping, Sequence

(
    OK,
    TOMBSTONE,
    VALUE_SIZE,
    HEADERS_SIZE,
    HEADERS_DUPLICATE,
    KEY_NULL,
    KEY_SIZE,
    FRAME_SHORT,
    FRAME_MAGIC,
    SCHEMA_UNKNOWN,
    SCHEMA_SUBJECT,
    SCHEMA_INCOMPATIBLE,
    KEY_MISMATCH,
    KEY_PARTITION,
    TIME_FUTURE,
    TIME_STALE,
    NONFINITE,
    LABEL_CLASS,
    ID_CONFLICT,
) = range(19)
AVRO = 100
"""Codes from here on are the decoder's statuses."""
RULE = 1_000
"""Codes from here on are the declared rules, by position."""

NAMES: Mapping[int, str] = {
    TOMBSTONE: "tombstone.unexpected",
    VALUE_SIZE: "value.size",
    HEADERS_SIZE: "headers.size",
    HEADERS_DUPLICATE: "headers.duplicate",
    KEY_NULL: "key.null",
    KEY_SIZE: "key.size",
    FRAME_SHORT: "frame.short",
    FRAME_MAGIC: "frame.magic",
    SCHEMA_UNKNOWN: "schema.unknown",
    SCHEMA_SUBJECT: "schema.subject",
    SCHEMA_INCOMPATIBLE: "schema.incompatible",
    KEY_MISMATCH: "key.mismatch",
    KEY_PARTITION: "key.partition",
    TIME_FUTURE: "time.future",
    TIME_STALE: "time.stale",
    NONFINITE: "nonfinite",
    LABEL_CLASS: "label.class",
    ID_CONFLICT: "id.conflict",
}

_MESSAGES: Mapping[int, str] = {
    TOMBSTONE: "the value is null; this topic is not compacted, send a whole record",
    VALUE_SIZE: "the value is larger than {max_value_bytes} bytes; send a smaller record",
    HEADERS_SIZE: "more than {max_headers} headers or {max_header_bytes} bytes of them; send fewer",
    HEADERS_DUPLICATE: "ce_id or ce_source stands twice; send each header once",
    KEY_NULL: "the key is null; send the value of `{key}` as a UTF-8 string",
    KEY_SIZE: "the key is larger than {max_key_bytes} bytes; send the value of `{key}` as a UTF-8 string",
    FRAME_SHORT: "shorter than the 5-byte frame; write 0x00, the schema id (4 bytes, big-endian), the datum",
    FRAME_MAGIC: "the first byte is not 0x00; write 0x00, the schema id (4 bytes, big-endian), the datum",
    SCHEMA_UNKNOWN: "the registry has no schema with the id in the frame; register it before producing",
    SCHEMA_SUBJECT: "the schema id in the frame is not one of subject {topic}-value; register it there",
    SCHEMA_INCOMPATIBLE: "the writer's schema cannot be read as the pinned one; write a compatible version",
    KEY_MISMATCH: "the key is not the value's `{key}`; send that field as the key",
    KEY_PARTITION: "the key belongs on another partition; set partitioner=murmur2_random in the producer",
    TIME_FUTURE: "the record or its `{time}` lies too far in the future; check the producer's clock and unit",
    TIME_STALE: "the record's timestamp or its `{time}` lies too far in the past; check clock and unit (ms)",
    NONFINITE: "a number is NaN or infinite; leave it out or send null where the schema allows it",
    LABEL_CLASS: "`{label}` is not one of {classes}; send a declared class",
    ID_CONFLICT: "this id came before with other content; the first one stands, send a new id",
}


class Reasons:
    """The codes of one topic of one pipeline: fixed ones, the decoder's, and one for each declared rule."""

    def __init__(
        self, avro: Sequence[str], rules: Sequence[tuple[str, str]], facts: Mapping[str, object]
    ) -> None:
        self._names = dict(NAMES)
        self._messages = {code: text.format(**facts) for code, text in _MESSAGES.items()}
        for status, name in enumerate(avro):
            self._names[AVRO + status] = name
            self._messages[AVRO + status] = "the datum is not what its schema says; check the serializer"
        for at, (field, bounds) in enumerate(rules):
            self._names[RULE + at] = f"range.{field}"
            self._messages[RULE + at] = f"`{field}` is outside of {bounds}; check the value and its unit"

    def name(self, code: int) -> str:
        """The bounded code that the dead letter carries."""
        return self._names[code]

    def message(self, code: int) -> str:
        """What was wrong and what to do, for people."""
        return self._messages[code]
