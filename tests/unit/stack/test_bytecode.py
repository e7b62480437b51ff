"""Byte code is kept where somebody forbade it beside the sources, and nowhere else."""

import os
import subprocess
import sys
from pathlib import Path

from services.stack.bytecode import FORBIDDEN, PREFIX, kept_bytecode


def test_nothing_is_set_where_python_keeps_it_anyway(tmp_path: Path) -> None:
    assert kept_bytecode(tmp_path, {}) == {}
    assert kept_bytecode(tmp_path, {FORBIDDEN: ""}) == {}
    assert kept_bytecode(tmp_path, {FORBIDDEN: "1", PREFIX: "elsewhere"}) == {}


def test_what_a_process_compiles_lies_below_the_home(tmp_path: Path) -> None:
    (tmp_path / "some.py").write_text("x = 1\n")
    given = {**os.environ, FORBIDDEN: "1", PREFIX: ""}
    environment = given | kept_bytecode(tmp_path / "home", given)
    subprocess.run([sys.executable, "-c", "import some"], cwd=tmp_path, env=environment, check=True)
    assert not (tmp_path / "__pycache__").exists()
    assert list((tmp_path / "home" / "bytecode").rglob("some.*.pyc"))
