"""The command starts quickly, tells the shell what happened, and says errors as messages."""

import subprocess
import sys
from pathlib import Path

import pytest

from services.cli.main import MODULES, exit_code
from services.cli.run import parse_workers
from shared.errors import DeclarationError, Fenced, MillraceError, Problem, Refused, Retry

HEAVY = ("numpy", "numba", "torch", "confluent_kafka", "polars", "fastavro", "jgo", "httpx")


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"MILLRACE_HOME": str(home), "PATH": ""},
    )


def test_building_the_command_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys; from services.cli.main import build; build()"
    done = run("-c", f"{code}; print(sorted(set({HEAVY}) & sys.modules.keys()))", home=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_every_module_of_commands_is_listed() -> None:
    folder = Path(__file__).parents[2] / "services/cli"
    register = {path.stem for path in folder.glob("*.py") if "\ndef register(" in path.read_text()}
    assert set(MODULES) == register


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused("x"), 78),
        (DeclarationError([Problem("f", 1, "m", "x")]), 78),
        (Retry("x"), 75),
        (Fenced("x"), 70),
    ],
)
def test_exit_codes(error: MillraceError, code: int) -> None:
    assert exit_code(error) == code


def test_an_error_is_a_message_and_no_traceback(tmp_path: Path) -> None:
    done = run("-m", "services.cli.main", "run", "fraud", "--workers", "ingest=many", home=tmp_path)
    assert done.returncode == 78
    assert done.stderr.strip().startswith("millrace: --workers ingest=many: write SERVICE=NUMBER")


def test_nothing_runs_in_an_empty_folder(tmp_path: Path) -> None:
    assert run("-m", "services.cli.main", "status", home=tmp_path).returncode == 1
    down = run("-m", "services.cli.main", "down", home=tmp_path)
    assert (down.returncode, "nothing runs" in down.stdout) == (0, True)


@pytest.mark.parametrize("text", ["ingest", "ingest=0", "ingest=-1", "ingest=1.5", "ingest=65", "="])
def test_numbers_of_workers_are_checked(text: str) -> None:
    with pytest.raises(Refused, match="a number from 1 to 64"):
        parse_workers([text])
