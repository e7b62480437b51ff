"""The data contracts: `platform/` and one folder a pipeline. Released versions are immutable."""

import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
"""Where the packaged contracts lie."""


@cache
def _platform_text(name: str) -> str:
    return (FOLDER / "platform" / f"{name}.avsc").read_text(encoding="utf-8")


def platform_names() -> tuple[str, ...]:
    """The platform's own contracts: prediction, dead_letter and so on."""
    return tuple(sorted(path.stem for path in (FOLDER / "platform").glob("*.avsc")))


def platform_schema(name: str) -> dict[str, Any]:
    """One of the platform's own contracts as parsed JSON; the caller may change its copy."""
    schema: dict[str, Any] = json.loads(_platform_text(name))
    return schema


def pipeline_names() -> tuple[str, ...]:
    """The pipelines that come with Millrace."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/pipeline.toml")))
