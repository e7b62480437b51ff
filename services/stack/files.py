"""Files that several processes share: a lock that dies with its holder, and writes that are whole or
absent.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared.errors import Refused, Retry

WAIT_S = 300.0
POLL_S = 0.05


@contextmanager
def locked(path: Path, busy: str, wait_s: float = WAIT_S) -> Iterator[None]:
    """Hold the lock at `path`, waiting for `wait_s` seconds at most.

    The kernel drops the lock when its holder dies, so a lock file that lies about blocks nobody.
    Raises `Retry` with `busy` and the holder's pid when the time is over, `Refused` when `path` cannot be
    written.
    """
    file = _open(path)
    try:
        _wait(file, path, busy, wait_s)
        os.truncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(file)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Refused(
            f"cannot write {path}: {error.strerror}; choose another folder (MILLRACE_HOME, XDG_CACHE_HOME)"
            " or free some space"
        ) from error


def _wait(file: int, path: Path, busy: str, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = path.read_text().strip() or "unknown"
                raise Retry(
                    f"{busy} (process {holder}); wait for it to end or stop it, then try again"
                ) from None
            time.sleep(POLL_S)
        else:
            return


def write_whole(path: Path, text: str) -> None:
    """Write so that a reader sees the old text or the new one; raises `Refused` when the disk is full."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text)
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise Refused(
            f"cannot write {path}: {error.strerror}; free some space or choose another folder"
        ) from error
