"""Detached processes that survive the command which started them, known by pid and start time.

A pid alone may have been given to a stranger since; pid, boot and start tick together cannot, so nothing
else is
ever signalled. Each process leads a session and group of its own, which is signalled as a whole.
"""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.stack.files import write_whole

POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Handle:
    """A process: its id and what tells it from any later one with the same id."""

    pid: int
    born: str

    @property
    def alive(self) -> bool:
        """Whether this very process runs; one that waits to be collected does not."""
        _collect(self.pid)
        return _birth(self.pid) == self.born

    def signal(self, number: int) -> None:
        """Signal the process's whole group, if it is still this process."""
        if self.alive:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                return


def spawn(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Handle:
    """Start `command` in a session of its own with both outputs appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    pid = os.posix_spawn(
        command[0],
        list(command),
        {**os.environ, **(environment or {})},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    return Handle(pid, _birth(pid) or "ended")


def remember(handle: Handle, pidfile: Path) -> None:
    """Write the process's identity."""
    write_whole(pidfile, f"{handle.pid} {handle.born}\n")


def recall(pidfile: Path) -> Handle | None:
    """The process that `pidfile` names, if it still runs; None when absent, damaged, ended, or another's
    pid now.
    """
    try:
        pid, born = pidfile.read_text().split()
        handle = Handle(int(pid), born)
    except (OSError, ValueError):
        return None
    return handle if handle.alive else None


def stop_all(handles: Sequence[Handle], patience_s: float) -> list[Handle]:
    """End the processes: SIGTERM to all, SIGKILL to what is left after `patience_s`; gives those that were
    killed.
    """
    for handle in handles:
        handle.signal(signal.SIGTERM)
    killed = wait_gone(handles, patience_s)
    for handle in killed:
        handle.signal(signal.SIGKILL)
    wait_gone(killed, patience_s)
    return killed


def wait_gone(handles: Sequence[Handle], patience_s: float) -> list[Handle]:
    """Wait until the processes have ended; gives those that still run after `patience_s`."""
    deadline = time.monotonic() + patience_s
    left = [handle for handle in handles if handle.alive]
    while left and time.monotonic() < deadline:
        time.sleep(POLL_S)
        left = [handle for handle in left if handle.alive]
    return left


def exit_code(handle: Handle) -> int | None:
    """What our own child ended with, negative after a signal; None while it runs or when nobody can tell
    any more.
    """
    try:
        ended = os.waitid(os.P_PID, handle.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def find_marked(home: Path, names: Sequence[str]) -> dict[str, Handle]:
    """The stack's processes of the data folder `home` by part, found by what they say of themselves.

    A Java part carries its folder as an argument; Redis, which rewrites its arguments, has it as working
    folder.
    """
    import psutil

    found: dict[str, Handle] = {}
    for running in psutil.process_iter():
        try:
            arguments, folder = running.cmdline(), Path(running.cwd())
        except (psutil.Error, OSError):
            continue  # it has ended, or belongs to another user
        for name in names:
            mine = marker(home / name) in arguments
            mine |= folder == home / name and any("redis-server" in word for word in arguments[:1])
            if mine and (born := _birth(running.pid)):
                found[name] = Handle(running.pid, born)
    return found


def marker(folder: Path) -> str:
    """A Java argument that names a part's folder: where the JVM writes should it crash, and whose process
    it is.
    """
    return f"-XX:ErrorFile={folder / 'hs_err.log'}"


def _collect(pid: int) -> None:
    """Take leave of our own ended child, so that it does not stay a zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def _birth(pid: int) -> str | None:
    """What identifies the running process `pid`: boot and start tick on Linux, the time elsewhere; None if
    ended.
    """
    try:
        # The command's name may hold spaces and brackets: fields are counted from the last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _birth_elsewhere(pid)
    # A killed process keeps its ports until its last thread is gone, though its leader is a zombie by then.
    if fields[0] == "X" or (fields[0] == "Z" and int(fields[17]) <= 1):
        return None
    return f"{_boot()}:{fields[19]}"


def _boot() -> str:
    """This boot's identity."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.is_file() else "boot"


def _birth_elsewhere(pid: int) -> str | None:
    """Where there is no /proc: the start time in seconds."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"time:{process.create_time():.0f}"
    except psutil.NoSuchProcess:
        return None
