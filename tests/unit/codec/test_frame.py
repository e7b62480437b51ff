"""The five bytes before a datum."""

import pytest

from shared.codec.batch import Strings
from shared.codec.frame import FRAME_REASONS, frame_prefix, split_frames


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "frame.short"),
        (b"\0", "frame.short"),
        (b"\0\0\0\0", "frame.short"),
        (b"\0\0\0\0\x01", "frame.short"),
        (b"\x05\0\0\0\x01a", "frame.magic"),
        (b"\x01" + b"g" * 17, "frame.magic"),
        (b'{"a": 1}', "frame.magic"),
        (b"\0\0\0\0\x01a", "ok"),
    ],
)
def test_each_value_has_its_reason_and_stays_alone(value: bytes, reason: str) -> None:
    good = frame_prefix(258) + b"xyz"
    ids, payload, status = split_frames(Strings.of([good, value, good]))
    assert [FRAME_REASONS[s] for s in status] == ["ok", reason, "ok"]
    assert ids.tolist() == [258, 1 if reason == "ok" else 0, 258]
    assert payload.to_list() == [b"xyz", b"a" if reason == "ok" else b"", b"xyz"]


@pytest.mark.parametrize("schema_id", [0, 1, 256, 2**31 - 1])
def test_ids_come_back(schema_id: int) -> None:
    ids, _, _ = split_frames(Strings.of([frame_prefix(schema_id) + b"."]))
    assert ids.tolist() == [schema_id]
