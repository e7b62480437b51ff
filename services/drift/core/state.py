"""The monitor's state as bytes: JSON with arrays beside it, compressed; no pickle, bit-equal on the way back."""

import base64
import json
import zlib
from typing import Any

import numpy as np

FORMAT = 1


def _out(value: Any) -> Any:
    if isinstance(value, dict):
        return {"map": {key: _out(each) for key, each in value.items()}}
    if isinstance(value, list | tuple):
        return {"list": [_out(each) for each in value]}
    if isinstance(value, np.ndarray):
        # Integers as differences: rising sequences and counts become runs of small numbers.
        flat = np.diff(value.ravel(), prepend=value.dtype.type(0)) if value.dtype == np.int64 else value
        packed = base64.b64encode(zlib.compress(np.ascontiguousarray(flat).tobytes(), 1)).decode()
        return {"array": packed, "type": value.dtype.str, "shape": list(value.shape)}
    return value.item() if isinstance(value, np.generic) else value


def _back(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "map" in value:
        return {key: _back(each) for key, each in value["map"].items()}
    if "list" in value:
        return [_back(each) for each in value["list"]]
    flat = np.frombuffer(zlib.decompress(base64.b64decode(value["array"])), np.dtype(value["type"]))
    flat = np.cumsum(flat, dtype=np.int64) if flat.dtype == np.int64 else flat.copy()
    return flat.reshape(value["shape"])


def pack(state: dict[str, Any]) -> bytes:
    """Bytes of a tree of dicts, lists, arrays and plain values; equal trees give equal bytes.

    >>> unpack(pack({"n": 1, "rows": np.array([5, 7, 6])}))
    {'n': 1, 'rows': array([5, 7, 6])}
    """
    return json.dumps({"format": FORMAT, "state": _out(state)}, sort_keys=True).encode()


def unpack(data: bytes) -> dict[str, Any]:
    """The tree of `pack`; ValueError for bytes of another format."""
    content = json.loads(data)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"not a state of the drift monitor in format {FORMAT}")
    state: dict[str, Any] = _back(content["state"])
    return state
