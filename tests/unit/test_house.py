"""Laws of the house: they run on everything that exists, and an exception stands here with its reason."""

import ast
import importlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from shared.settings import PlatformSettings
from shared.topics import ALL, Topic, stage_topic

ROOT = Path(__file__).parents[2]
SERVICES = sorted(p.name for p in (ROOT / "services").iterdir() if (p / "__init__.py").is_file())
NO_LOOP = {
    "cli": "commands by hand, not a service that runs",
    "stack": "starts other people's servers, folds nothing",
}
# Who reads or writes topics without being a folder of services/ yet, or ever.
OUTSIDE = {"anyone", "console"}
LEGAL_TEXT = {"LICENSE"}
# A public name behind a scheme; numbers, one-word hosts and the names reserved for examples are nobody's
# address.
ADDRESS = re.compile(r"https?://(?:[\w-]+\.)+(?!(?:test|invalid|example)\b)[a-z]{2,}\b", re.IGNORECASE)
MACHINE_PATH = re.compile(r"(?<![\w./-])/(?:work|root|home|Users|tmp)/\w")
UNSAFE = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
SOURCES = sorted(p for top in ("services", "shared", "schemas") for p in (ROOT / top).rglob("*.py"))


def tracked() -> list[Path]:
    """Every tracked text file; none outside a git checkout."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: what is tracked is unknown")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Each line with where it stands; a binary file has none."""
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        return
    for number, line in enumerate(text.splitlines(), 1):
        yield f"{path.relative_to(ROOT)}:{number}", line


def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "compose/docker-compose.yaml").read_text())
    return content


def own_services() -> dict[str, dict[str, Any]]:
    """The compose file's services that are built here."""
    return {name: spec for name, spec in compose()["services"].items() if "build" in spec}


def variables(model: type[BaseModel], prefix: str) -> set[str]:
    """The environment variables of a settings class."""
    names: set[str] = set()
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names |= variables(kind, f"{prefix}{name.upper()}__")
        else:
            names.add(f"{prefix}{name.upper()}")
    return names


def known_variables() -> set[str]:
    """Every variable that Millrace reads."""
    names = {"MILLRACE_HOME"} | variables(PlatformSettings, "MILLRACE_")
    for service in sorted(set(SERVICES) - NO_LOOP.keys()):
        module = importlib.import_module(f"services.{service}.settings")
        settings = getattr(module, f"{service.capitalize()}Settings")
        names |= variables(settings, f"MILLRACE_{service.upper()}__")
    return names


@pytest.mark.parametrize("topic", [*ALL, stage_topic("terminal")], ids=lambda topic: topic.name)
def test_every_topic_has_a_schema_a_producer_and_a_consumer(topic: Topic) -> None:
    origin, _, name = topic.schema.partition("/")
    assert origin in {"platform", "pipeline", "generated"}
    if origin == "platform":
        assert json.loads((ROOT / f"schemas/platform/{name}.avsc").read_text())["type"] == "record"
    elif origin == "pipeline":
        assert all(
            (folder.parent / f"{name}.avsc").is_file() for folder in ROOT.glob("schemas/*/pipeline.toml")
        )
    else:
        assert callable(getattr(importlib.import_module("shared.contracts.generated"), f"{name}_schema"))
    for side in (topic.producers, topic.consumers):
        assert side
        assert set(side) <= {*SERVICES, *OUTSIDE}


def test_topic_names_are_unique_and_versioned() -> None:
    names = [topic.name for topic in ALL]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+\.v\d+", name) for name in names)


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_says_what_it_is(service: str) -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / f"services/{service}/__init__.py").read_text()))
    assert docstring, f"services/{service}/__init__.py says what it reads, writes, keeps and promises"


@pytest.mark.parametrize("service", sorted(set(SERVICES) - NO_LOOP.keys()))
def test_every_service_has_the_same_rooms(service: str) -> None:
    folder = ROOT / "services" / service
    missing = [name for name in ("__main__.py", "settings.py", "metrics.py") if not (folder / name).is_file()]
    if not (folder / "core.py").is_file() and not (folder / "core" / "__init__.py").is_file():
        missing.append("core.py or core/")
    assert missing == []


@pytest.mark.parametrize("service", sorted(set(SERVICES) - NO_LOOP.keys()))
def test_every_setting_has_its_docstring(service: str) -> None:
    tree = ast.parse((ROOT / f"services/{service}/settings.py").read_text())
    bare = [
        statement.target.id
        for kind in ast.walk(tree)
        if isinstance(kind, ast.ClassDef)
        for statement, after in zip(kind.body, [*kind.body[1:], None], strict=True)
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        if not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant))
    ]
    assert bare == []


def test_exceptions_are_still_needed() -> None:
    assert NO_LOOP.keys() <= set(SERVICES)
    assert not OUTSIDE & set(SERVICES)


def test_no_addresses_in_tracked_files() -> None:
    found = [
        f"{where}: {match.group()}"
        for path in tracked()
        if path.name not in LEGAL_TEXT
        for where, line in lines(path)
        if (match := ADDRESS.search(line)) and "example." not in match.group()
    ]
    assert found == []


def test_no_machine_paths_in_tracked_files() -> None:
    found = [
        f"{where}: {match.group()}"
        for path in tracked()
        for where, line in lines(path)
        if (match := MACHINE_PATH.search(line))
    ]
    assert found == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unpickles(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not {name.partition(".")[0] for name in names} & UNSAFE, f"line {node.lineno}"  # type: ignore[attr-defined]
        if isinstance(node, ast.Attribute) and node.attr in {"load", "hub"}:
            assert not (isinstance(node.value, ast.Name) and node.value.id == "torch"), f"line {node.lineno}"


def test_compose_runs_services_that_exist() -> None:
    for name, spec in own_services().items():
        service = spec["build"]["args"]["SERVICE"]
        assert (ROOT / f"services/{service}/__main__.py").is_file(), name
        assert (ROOT / spec["build"]["dockerfile"]).is_file(), name


def test_compose_runs_every_stage_of_the_pipeline() -> None:
    from services.stack.supervisor import plan_of
    from shared.contracts.pipeline import load_pipeline

    workers = plan_of(load_pipeline(ROOT / "schemas/fraud"))
    commands = {worker.service: list(worker.command) for worker in workers}
    planned = {name: command[command.index("--pipeline") :] for name, command in commands.items()}
    assert {name: spec["command"] for name, spec in own_services().items() if name != "topics"} == planned


def test_compose_sets_only_variables_that_exist() -> None:
    known = known_variables()
    given = {
        name
        for spec in compose()["services"].values()
        for name in spec.get("environment", {})
        if name.startswith("MILLRACE_")
    }
    assert given - known == set()


def test_compose_publishes_distinct_ports_on_the_loopback() -> None:
    published = [port for spec in compose()["services"].values() for port in spec.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert len({port.split(":")[1] for port in published}) == len(published)


def test_compose_waits_for_services_and_volumes_that_exist() -> None:
    content = compose()
    for name, spec in content["services"].items():
        assert set(spec.get("depends_on", {})) <= content["services"].keys(), name
        for volume in spec.get("volumes", []):
            assert volume.split(":")[0] in content["volumes"], name


def test_compose_brings_the_versions_of_the_embedded_stack() -> None:
    from services.stack import relock

    images = {name: spec["image"] for name, spec in compose()["services"].items() if "image" in spec}
    assert images["kafka"].endswith(f":{relock.KAFKA}")
    assert images["registry"].endswith(f":{relock.REGISTRY}")


def test_make_stands_alone_at_the_top_of_the_readme() -> None:
    body = (ROOT / "README.md").read_text().split("```")[1].splitlines()
    assert [line.split("#")[0].strip() for line in body[1:] if line.strip()] == ["make demo", "make test"]


def test_constraints_name_a_hash_for_each_package() -> None:
    for name in ("constraints.txt", "constraints-uv.txt"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        pinned = re.split(r"\n(?=\S)", text.strip())
        assert [entry for entry in pinned if "--hash=sha256:" not in entry] == []


def test_every_declared_dependency_is_constrained() -> None:
    declared = (ROOT / "pyproject.toml").read_text()
    wanted = {match.lower() for match in re.findall(r'^\s+"([A-Za-z0-9-]+)>=', declared, re.MULTILINE)}
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    inline = re.findall(r'"([A-Za-z0-9-]+)>=', declared)
    assert {name.lower() for name in inline} | wanted <= pinned
