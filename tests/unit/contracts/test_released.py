"""Released versions: written once, and a yardstick ever after."""

from pathlib import Path

import pytest

from shared.contracts.released import check_folder, release_folder, released_versions
from shared.errors import DeclarationError
from tests.unit.contracts.texts import TEXTS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "shop"
    made.mkdir()
    for name, text in TEXTS.items():
        (made / name).write_text(text, encoding="utf-8")
    return made


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_release_writes_a_version_once(folder: Path) -> None:
    done = release_folder(folder)
    assert [(path.name, state) for path, state in done] == [
        ("event.1.avsc", "written"),
        ("label.1.avsc", "written"),
    ]
    assert {state for _, state in release_folder(folder)} == {"unchanged"}
    edit(folder / "event.avsc", '"Euros."', '"In euros."')
    assert [(path.name, state) for path, state in release_folder(folder)] == [
        ("event.2.avsc", "written"),
        ("label.1.avsc", "unchanged"),
    ]
    assert [number for number, _ in released_versions(folder, "event")] == [1, 2]
    assert (folder / "released" / "label.1.avsc").read_text(encoding="utf-8") == TEXTS["label.avsc"]


def test_versions_are_ordered_as_numbers(folder: Path) -> None:
    (folder / "released").mkdir()
    for number in (10, 9, 1):
        (folder / "released" / f"event.{number}.avsc").write_text('"int"', encoding="utf-8")
    assert [number for number, _ in released_versions(folder, "event")] == [1, 9, 10]


def test_a_break_with_any_released_version_is_told_at_its_line(folder: Path) -> None:
    release_folder(folder)
    edit(
        folder / "event.avsc",
        '{"name": "discount"',
        '{"name": "city", "type": "string", "doc": "Where."},\n    {"name": "discount"',
    )
    [found] = [p for p in check_folder(folder) if "version 1" in p.message]
    assert (found.file, found.line) == (str(folder / "event.avsc"), 12)
    assert found.message == "cannot read data of version 1: field `city` is not in it and has no default"
    assert "default" in found.fix
    with pytest.raises(DeclarationError, match="city"):
        release_folder(folder)


def test_the_platform_may_not_drop_a_field_either(tmp_path: Path) -> None:
    folder = tmp_path / "platform"
    folder.mkdir()
    (folder / "metric.avsc").write_text(TEXTS["event.avsc"], encoding="utf-8")
    release_folder(folder)
    edit(folder / "metric.avsc", '{"name": "amount", "type": "double", "doc": "Euros."},\n', "")
    [found] = check_folder(folder)
    assert found.message.startswith("readers of version 1 cannot read this: field `amount`")
