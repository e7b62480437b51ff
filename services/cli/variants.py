"""A declared pipeline under another name, with other partitions or another order, for comparisons."""

import re
import shutil
from pathlib import Path


def write_variant(
    source: Path,
    root: Path,
    name: str,
    partitions: int | None = None,
    order: str | None = None,
    epoch: str | None = None,
) -> Path:
    """Copy the declaration in `source` to `root/name` with these changes; returns the new folder."""
    folder = root / name
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("released", "*.csv"))
    path = folder / "pipeline.toml"
    text = _set(path.read_text(), "name", f'"{name}"')
    if partitions is not None:
        text = _set(text, "partitions", str(partitions))
    if order is not None:
        text = _set(text, "order", f'"{order}"')
    if epoch is not None:
        text = _set(text, "epoch", f'"{epoch}"')
    path.write_text(text)
    return folder


def _set(text: str, key: str, value: str) -> str:
    """Replace the first `key = ...`; a missing one goes into the leading [pipeline] table."""
    changed, count = re.subn(rf"(?m)^{key}\s*=.*$", f"{key} = {value}", text, count=1)
    if count:
        return changed
    return text.replace("[pipeline]\n", f"[pipeline]\n{key} = {value}\n", 1)
