"""A process is known by more than its pid, leaves with its whole group, and is found again without a
pidfile.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.stack import process
from services.stack.process import Handle

HAS_A_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""
SLEEPS = (sys.executable, "-c", "import time; time.sleep(60)")


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Handle]:
    handle = process.spawn(SLEEPS, tmp_path / "log")
    yield handle
    process.stop_all([handle], 5)


def test_a_recycled_pid_is_never_recalled_nor_signalled(sleeper: Handle, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    process.remember(Handle(sleeper.pid, "another-boot:1"), pidfile)
    assert process.recall(pidfile) is None
    Handle(sleeper.pid, "another-boot:1").signal(signal.SIGKILL)
    time.sleep(0.1)
    assert sleeper.alive


def test_the_pidfile_leads_back_to_the_process(sleeper: Handle, tmp_path: Path) -> None:
    process.remember(sleeper, tmp_path / "pid")
    assert process.recall(tmp_path / "pid") == sleeper


@pytest.mark.parametrize("content", ["", "x", "12", "one two", "1 2 3"])
def test_a_damaged_pidfile_counts_as_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(content)
    assert process.recall(tmp_path / "pid") is None


def test_it_leads_a_session_of_its_own(sleeper: Handle) -> None:
    assert os.getsid(sleeper.pid) == sleeper.pid != os.getsid(0)


def test_the_whole_group_leaves(tmp_path: Path) -> None:
    handle = process.spawn((sys.executable, "-c", HAS_A_CHILD), tmp_path / "log")
    while not (tmp_path / "log").read_text().strip():
        time.sleep(0.02)
    child = Path(f"/proc/{(tmp_path / 'log').read_text().strip()}/stat")
    assert process.stop_all([handle], 5) == []
    while child.is_file() and child.read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.02)


def test_exit_codes_are_told(tmp_path: Path) -> None:
    for code, expected in (("raise SystemExit(78)", 78), ("import os; os.kill(os.getpid(), 9)", -9)):
        handle = process.spawn((sys.executable, "-c", code), tmp_path / "log")
        while (told := process.exit_code(handle)) is None:
            time.sleep(0.02)
        assert told == expected
        assert not handle.alive


def test_a_marked_process_is_found_without_its_pidfile(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    handle = process.spawn((*SLEEPS, process.marker(tmp_path / "kafka")), tmp_path / "log")
    try:
        while not (found := process.find_marked(tmp_path, ("kafka", "redis"))):
            time.sleep(0.02)
        assert found == {"kafka": handle}
        assert process.find_marked(tmp_path / "elsewhere", ("kafka", "redis")) == {}
    finally:
        process.stop_all([handle], 5)
