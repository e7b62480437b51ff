"""Where Python keeps what it compiled: without that each process compiles thousands of files when it starts."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

FORBIDDEN, PREFIX = "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"


def kept_bytecode(home: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """What to set beside `environment` so that byte code is kept, below the home, where it was not to be.

    Images and test machines often forbid it beside the sources with PYTHONDONTWRITEBYTECODE; a service then
    compiles for seconds at each start, and so does each training.
    """
    if not environment.get(FORBIDDEN) or environment.get(PREFIX):
        return {}
    return {FORBIDDEN: "", PREFIX: str(home / "bytecode")}


def keep_bytecode(home: Path) -> None:
    """The same for this process, as far as it imports from here on, and for those that it starts."""
    found = kept_bytecode(home, os.environ)
    os.environ.update(found)
    if found:
        sys.dont_write_bytecode, sys.pycache_prefix = False, found[PREFIX]
