"""Reading weights that somebody else wrote: refuse first, parse second, never execute.

A `safetensors` file is an 8-byte length, a JSON header and raw numbers. The library accepts duplicate keys
and NaN, so every header is checked here before the library sees the bytes. Pickles and archives are known
by their first bytes and are not opened.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.errors import Refused

MAX_HEADER_BYTES = 1 << 20
MAX_TENSORS = 1024
_ITEM_BYTES = {"F32": 4, "F64": 8}
_ARCHIVES = {
    b"PK": "format.zip",
    b"7z\xbc\xaf": "format.7z",
    b"\x1f\x8b": "format.gzip",
    b"\x28\xb5\x2f\xfd": "format.zstd",
}
Tensor = npt.NDArray[np.float32] | npt.NDArray[np.float64]


class ModelRefused(Refused):
    """A model is not taken; the one that serves goes on. `reason` is a bounded code, `detail` is for people.

    announcement.invalid · location.forbidden · version.stale · artefact.missing · artefact.conflict
    signature.missing · signature.unknown_key · signature.invalid · signature.expired
    manifest.invalid · digest.mismatch · features.mismatch · dtype.mismatch · outputs.mismatch
    format.pickle · format.zip · format.7z · format.gzip · format.zstd · format.safetensors · format.onnx
    weights.duplicate_key · weights.shape · weights.nonfinite
    golden.mismatch · golden.nonfinite · golden.range · resources.memory · resources.latency · runtime.missing
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class _DuplicateKey(ValueError):
    pass


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _DuplicateKey("a key stands twice in one object")
    return made


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def strict_json(data: bytes) -> Any:
    """Parse UTF-8 JSON without duplicate keys, NaN or Infinity; ValueError for anything else."""
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def sniff(data: bytes) -> None:
    """Refuse pickles and archives by their first bytes, without opening them.

    A safetensors header of, say, 640 bytes also begins with a pickle's 0x80 0x02: what has a sane length
    and an opening brace behind it is left to the header check.
    """
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8:
        return
    if data[:1] == b"\x80":
        raise ModelRefused("format.pickle", "begins like a pickle; only safetensors and ONNX are read")
    for magic, reason in _ARCHIVES.items():
        if data.startswith(magic):
            raise ModelRefused(reason, "begins like an archive; only safetensors and ONNX are read")


def _malformed(detail: str) -> ModelRefused:
    return ModelRefused("format.safetensors", detail)


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    if len(data) < 8:
        raise _malformed(f"{len(data)} bytes are no safetensors file")
    size = int.from_bytes(data[:8], "little")
    if size > MAX_HEADER_BYTES or size > len(data) - 8:
        raise _malformed(f"a header of {size} bytes in a file of {len(data)}, at most {MAX_HEADER_BYTES}")
    try:
        header = strict_json(data[8 : 8 + size])
    except _DuplicateKey as error:
        raise ModelRefused("weights.duplicate_key", str(error)) from error
    except ValueError as error:
        raise _malformed(f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise _malformed("the header is not an object")
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise _malformed(f"{len(header)} tensors, at most {MAX_TENSORS}")
    return header, size


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _extent(name: str, entry: object) -> tuple[int, int]:
    """Begin and end of one tensor's bytes, checked against its shape and dtype."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _malformed(f"{name}: an entry has dtype, shape and data_offsets, no more and no less")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or len(shape) > 4 or not all(map(_is_count, shape)):
        raise _malformed(f"{name}: shape is not a list of at most 4 counts")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise _malformed(f"{name}: data_offsets is not a pair of counts")
    if entry["dtype"] not in _ITEM_BYTES:
        raise ModelRefused("dtype.mismatch", f"{name} is {str(entry['dtype'])[:20]}; use F32 or F64")
    begin, end = int(offsets[0]), int(offsets[1])
    if end - begin != math.prod(shape) * _ITEM_BYTES[entry["dtype"]]:
        raise _malformed(f"{name}: {end - begin} bytes do not hold shape {shape} of {entry['dtype']}")
    return begin, end


def check_safetensors(data: bytes) -> None:
    """Refuse a file whose header is not exact: every byte belongs to one tensor, and no name comes twice."""
    sniff(data)
    header, size = _header(data)
    at = 0
    for begin, end, name in sorted((*_extent(name, entry), name) for name, entry in header.items()):
        if begin != at:
            raise _malformed(f"{name} begins at byte {begin}, {at} was expected (a hole or an overlap)")
        at = end
    if at != len(data) - 8 - size:
        raise _malformed(f"{len(data) - 8 - size - at} bytes behind the last tensor")


def read_tensors(data: bytes) -> dict[str, Tensor]:
    """The tensors of a file that passed every check; ModelRefused otherwise, also for NaN and infinity."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    check_safetensors(data)
    try:
        tensors: dict[str, Tensor] = load(data)
    except SafetensorError as error:
        raise _malformed(str(error)) from error
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ModelRefused("weights.nonfinite", f"{name} holds NaN or infinity")
    return tensors


def write_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """A safetensors file, the same bytes for the same tensors."""
    from safetensors.numpy import save

    data: bytes = save({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)})
    return data
