"""The steps of a retraining, and the key under which the result of one is kept."""

import hashlib
import json
from typing import Final

from pydantic import JsonValue

STEPS: Final = ("dataset", "statistics", "train", "evaluate", "package", "propose")
"""In their order; `trigger` stands before them on runs.v1, and one of `ENDS` behind them."""
ENDS: Final = ("done", "failed", "skipped")


def canonical(value: JsonValue) -> bytes:
    """JSON's one byte form here: sorted keys, no spaces, ASCII, no NaN (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def step_key(step: str, inputs: JsonValue, code: str, parameters: JsonValue) -> str:
    """sha256 in hex of all that a step's result follows from; the same key needs no second run."""
    said: JsonValue = {"step": step, "inputs": inputs, "code": code, "parameters": parameters}
    return hashlib.sha256(canonical(said)).hexdigest()


def run_slug(run: str) -> str:
    """A run's id as a file name: what is no plain letter becomes `_`, with a digest where that lost something.

    >>> run_slug("labels-999")
    'labels-999'
    """
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-.") else "_" for c in run)[:80]
    if plain == run and not run.startswith("."):
        return run
    return f"{plain.lstrip('.')}-{hashlib.sha256(run.encode()).hexdigest()[:12]}"
