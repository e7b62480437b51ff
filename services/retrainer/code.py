"""The digest of the code that makes datasets and models."""

import hashlib
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("services/retrainer", "shared/models")


@cache
def code_digest() -> str:
    """sha256 in hex over names and bytes of the sources of the retrainer and of what models are built with."""
    digest = hashlib.sha256()
    for folder in FOLDERS:
        for path in sorted((_ROOT / folder).rglob("*.py")):
            data = path.read_bytes()
            digest.update(f"{path.relative_to(_ROOT).as_posix()}\n{len(data)}\n".encode())
            digest.update(data)
    return digest.hexdigest()
