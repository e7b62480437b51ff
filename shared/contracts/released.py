"""Released versions of schemas: files `released/NAME.N.avsc`, written once and never changed."""

import json
import re
from pathlib import Path
from typing import Any, Literal

import schemas
from shared.contracts.compat import Level, compatibility_problems
from shared.contracts.lint import lint_record
from shared.contracts.pipeline import load_pipeline
from shared.contracts.positions import parse_json
from shared.errors import DeclarationError, Problem

PLATFORM = "platform"
"""The name under which the platform's own contracts are checked and released."""
_VERSION = re.compile(r"(?P<name>\w+)\.(?P<number>\d+)\.avsc")


def released_versions(folder: Path, name: str) -> list[tuple[int, dict[str, Any]]]:
    """The released versions of `name`, oldest first."""
    found = []
    for path in (folder / "released").glob(f"{name}.*.avsc"):
        match = _VERSION.fullmatch(path.name)
        if match and match["name"] == name:
            found.append((int(match["number"]), json.loads(path.read_text(encoding="utf-8"))))
    return sorted(found, key=lambda version: version[0])


def check_folder(folder: Path) -> list[Problem]:
    """Every problem of one contract folder: declaration, lint, and compatibility with what was released."""
    platform = folder == schemas.FOLDER / PLATFORM or folder.name == PLATFORM
    problems: list[Problem] = []
    if not platform:
        try:
            load_pipeline(folder)
        except DeclarationError as error:
            problems += error.problems
    level: Level = "FULL_TRANSITIVE" if platform else "BACKWARD_TRANSITIVE"
    for path in sorted(folder.glob("*.avsc")):
        schema, at, found = parse_json(path.read_text(encoding="utf-8"), str(path))
        if not found and schema is not None:
            found = lint_record(schema, at)
        if platform:
            problems += found
        if not found:
            versions = [(f"version {n}", old) for n, old in released_versions(folder, path.stem)]
            problems += compatibility_problems(schema, at, versions, level)
    return problems


Release = tuple[Path, Literal["written", "unchanged"]]


def release_folder(folder: Path) -> list[Release]:
    """Write a version of each schema that differs from its last; DeclarationError if the check fails."""
    if problems := check_folder(folder):
        raise DeclarationError(problems)
    done: list[Release] = []
    for path in sorted(folder.glob("*.avsc")):
        text = path.read_text(encoding="utf-8")
        versions = released_versions(folder, path.stem)
        number, last = versions[-1] if versions else (0, None)
        if last == json.loads(text):
            done.append((folder / "released" / f"{path.stem}.{number}.avsc", "unchanged"))
            continue
        target = folder / "released" / f"{path.stem}.{number + 1}.avsc"
        target.parent.mkdir(exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
        done.append((target, "written"))
    return done
