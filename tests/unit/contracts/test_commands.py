"""`millrace schemas` and `millrace init`: what they print and how they end."""

import csv
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from services.cli import init, schemas
from services.cli.init import SAMPLE_ROWS
from shared.contracts.pipeline import load_pipeline


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    monkeypatch.setenv("MILLRACE_REGISTRY__URL", "http://127.0.0.1:9")
    app = typer.Typer()
    schemas.register(app)
    init.register(app)
    return app


def run(app: typer.Typer, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, words)
    return result.exit_code, result.output


def test_init_writes_a_pipeline_that_passes_the_check(app: typer.Typer, tmp_path: Path) -> None:
    code, said = run(app, "init", "my-orders")
    assert code == 0
    assert "millrace replay" in said
    assert run(app, "schemas", "check", "my-orders") == (0, "schemas/my-orders: ok\n")
    folder = tmp_path / "schemas" / "my-orders"
    pipeline = load_pipeline(folder)
    assert pipeline.source is not None
    with (folder / "sample.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == SAMPLE_ROWS
    cells = [*pipeline.source.event.values(), *pipeline.source.label.values()]
    assert {cell.text for cell in cells if cell.kind == "column"} <= set(rows[0])
    assert [int(row["seconds"]) for row in rows] == sorted(int(row["seconds"]) for row in rows)
    assert {row["returned"] for row in rows} == {"0", "1"}


def test_init_overwrites_nothing(app: typer.Typer) -> None:
    assert run(app, "init", "orders", "--json")[0] == 0
    code, said = run(app, "init", "orders")
    assert code == 2
    assert "is there already" in said


@pytest.mark.parametrize("name", ["Orders", "../up", "1st", "platform", "a b"])
def test_init_refuses_names_that_cannot_be(app: typer.Typer, name: str) -> None:
    code, said = run(app, "init", name)
    assert code == 2
    assert "cannot name a pipeline" in said


def test_check_all_passes_for_what_is_packaged(app: typer.Typer) -> None:
    code, said = run(app, "schemas", "check", "--all", "--json")
    answer = json.loads(said)
    assert code == 0
    assert answer["ok"]
    assert [Path(folder).name for folder in answer["checked"]] == ["platform", "elec2", "fraud"]


def test_check_tells_file_line_and_fix(app: typer.Typer, tmp_path: Path) -> None:
    run(app, "init", "orders")
    file = tmp_path / "schemas" / "orders" / "pipeline.toml"
    text = file.read_text(encoding="utf-8").replace('aggregate = "mean"', 'agregate = "mean"')
    file.write_text(text, encoding="utf-8")
    line = text[: text.index("agregate")].count("\n") + 1
    code, said = run(app, "schemas", "check", "orders")
    assert code == 1
    assert f"schemas/orders/pipeline.toml:{line}: unknown key `agregate` in [[feature]]" in said
    assert "did you mean `aggregate`?" in said
    code, said = run(app, "schemas", "check", "orders", "--json")
    assert code == 1
    assert {"file", "line", "message", "fix"} == set(json.loads(said)["problems"][0])


@pytest.mark.parametrize(
    "words", [["schemas", "check"], ["schemas", "check", "fraud", "--all"], ["schemas", "check", "nowhere"]]
)
def test_wrong_use_ends_in_2(app: typer.Typer, words: list[str]) -> None:
    assert run(app, *words)[0] == 2


def test_release_writes_versions(app: typer.Typer, tmp_path: Path) -> None:
    run(app, "init", "orders")
    code, said = run(app, "schemas", "release", "orders", "--json")
    assert code == 0
    assert {entry["state"] for entry in json.loads(said)["released"]} == {"written"}
    assert (tmp_path / "schemas" / "orders" / "released" / "event.1.avsc").is_file()


def test_register_says_what_to_do_when_the_registry_is_away(app: typer.Typer) -> None:
    code, said = run(app, "schemas", "register", "fraud")
    assert code == 1
    assert "millrace up" in said
