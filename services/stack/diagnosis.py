"""Reads the end of a part's log and says in one line what went wrong and what to do next."""

from dataclasses import dataclass
from pathlib import Path

TAIL_BYTES = 20_000


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a part ended, and what its user can do."""

    what: str
    next_step: str


PORT = Cause("its port is taken", "run `millrace up` again, it chooses another one")
DISK = Cause("the disk is full", "free some space, or set MILLRACE_HOME to a folder on another disk")
MEMORY = Cause(
    "there is not enough memory", "stop other programs; broker and registry need about 1 GB together"
)
LOCKED = Cause(
    "another process uses its data",
    "find it with `millrace doctor` and stop it, or choose another MILLRACE_HOME",
)
RIGHTS = Cause("it may not write its folder", "make the data folder yours, or choose another MILLRACE_HOME")
DAMAGED = Cause(
    "its data is damaged",
    "move the part's folder away (its content is lost with it) and run `millrace up` again",
)

SIGNS = (
    ("address already in use", PORT),
    ("port already bound", PORT),
    ("seems to be used by another process", PORT),
    ("no space left on device", DISK),
    ("disk is full", DISK),
    ("outofmemoryerror", MEMORY),
    ("insufficient memory", MEMORY),
    ("cannot allocate memory", MEMORY),
    ("failed to acquire lock", LOCKED),
    ("database may be already in use", LOCKED),
    ("permission denied", RIGHTS),
    ("accessdeniedexception", RIGHTS),
    ("file corrupted", DAMAGED),
    ("bad file format reading the append only file", DAMAGED),
    ("short read or oom loading db", DAMAGED),
)


def explain(log: Path) -> Cause:
    """The cause that the end of `log` speaks of; the last lines themselves when it is none of the known
    ones.
    """
    text = _tail(log)
    if log.with_name("server.log").is_file():
        text += _tail(log.with_name("server.log"))
    lower = text.lower()
    positions = [(lower.rfind(sign), cause) for sign, cause in SIGNS if sign in lower]
    if positions:
        return max(positions, key=lambda found: found[0])[1]
    last = " / ".join(line.strip() for line in text.strip().splitlines()[-3:]) or "it wrote nothing"
    return Cause(last, "`millrace doctor` checks what it needs")


def _tail(log: Path) -> str:
    """The end of a file; nothing when there is none."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace")
