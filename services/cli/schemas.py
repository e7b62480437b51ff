"""`millrace schemas`: check contracts, register them, release them. Exit codes: 0 ok, 1 problems, 2 usage."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]
_OK, _PROBLEMS, _USAGE = 0, 1, 2


def register(app: typer.Typer) -> None:
    """Add the group `schemas`."""
    group = typer.Typer(no_args_is_help=True, help="Check, register and release data contracts.")
    group.command("check")(_check)
    group.command("register")(_register)
    group.command("release")(_release)
    app.add_typer(group, name="schemas")


def _check(
    pipeline: Annotated[str | None, typer.Argument(help="A pipeline, or `platform`.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every pipeline and the platform.")] = False,
    as_json: Json = False,
) -> None:
    """Validity, lint, declaration, and compatibility with every released version."""
    from shared.contracts.released import check_folder

    if (pipeline is None) == (not everything):
        _fail("name one pipeline, or write --all", as_json, _USAGE)
    folders = _all_folders() if everything else [_folder(str(pipeline), as_json)]
    found = {str(folder): check_folder(folder) for folder in folders}
    problems = [problem for of_folder in found.values() for problem in of_folder]
    if as_json:
        _print_json({"ok": not problems, "checked": list(found), "problems": [_as_dict(p) for p in problems]})
    else:
        for folder, of_folder in found.items():
            typer.echo(f"{folder}: {len(of_folder)} problem(s)" if of_folder else f"{folder}: ok")
            for problem in of_folder:
                typer.echo(f"  {problem}")
    raise typer.Exit(_PROBLEMS if problems else _OK)


def _register(
    pipeline: Annotated[str, typer.Argument(help="A pipeline.")],
    as_json: Json = False,
) -> None:
    """Register the schema of every topic of a pipeline; doing it again changes nothing."""
    from shared.contracts.pipeline import load_pipeline
    from shared.errors import DeclarationError, Refused, Retry
    from shared.kafka.registry import Registry, register_pipeline
    from shared.settings import PlatformSettings

    folder = _folder(pipeline, as_json)
    try:
        loaded = load_pipeline(folder)
        with Registry(PlatformSettings().registry) as registry:
            ids = register_pipeline(registry, loaded)
    except DeclarationError as error:
        _fail_with(error.problems, as_json)
    except Retry as error:
        _fail(f"{error} Start the embedded stack with `millrace up`, or set MILLRACE_REGISTRY__URL.", as_json)
    except Refused as error:
        _fail(str(error), as_json)
    if as_json:
        _print_json({"ok": True, "ids": ids})
    else:
        for topic, schema_id in ids.items():
            typer.echo(f"{topic}-value  {schema_id}")


def _release(
    pipeline: Annotated[str, typer.Argument(help="A pipeline, or `platform`.")],
    as_json: Json = False,
) -> None:
    """Freeze the current schemas as released versions; later ones must stay compatible with them."""
    from shared.contracts.released import release_folder
    from shared.errors import DeclarationError

    try:
        done = release_folder(_folder(pipeline, as_json))
    except DeclarationError as error:
        _fail_with(error.problems, as_json)
    if as_json:
        _print_json({"ok": True, "released": [{"file": str(path), "state": state} for path, state in done]})
    else:
        for path, state in done:
            typer.echo(f"{path}: {state}")


def _folder(name: str, as_json: bool) -> Path:
    import schemas
    from shared.contracts.pipeline import find_pipeline
    from shared.contracts.released import PLATFORM
    from shared.errors import Refused

    if name == PLATFORM:
        return schemas.FOLDER / PLATFORM
    try:
        return find_pipeline(name)
    except Refused as error:
        _fail(str(error), as_json, _USAGE)


def _all_folders() -> list[Path]:
    """The platform, the pipelines below ./schemas, and those that come with Millrace unless they are
    shadowed.
    """
    import schemas
    from shared.contracts.pipeline import find_pipeline
    from shared.contracts.released import PLATFORM

    local = [path.parent.name for path in Path("schemas").glob("*/pipeline.toml")]
    names = sorted({*local, *schemas.pipeline_names()})
    return [schemas.FOLDER / PLATFORM, *(find_pipeline(name) for name in names)]


def _fail_with(problems: Sequence[Any], as_json: bool) -> NoReturn:
    if as_json:
        _print_json({"ok": False, "problems": [_as_dict(problem) for problem in problems]})
    else:
        for problem in problems:
            typer.echo(str(problem), err=True)
    raise typer.Exit(_PROBLEMS)


def _fail(message: str, as_json: bool, code: int = _PROBLEMS) -> NoReturn:
    if as_json:
        _print_json({"ok": False, "error": message})
    else:
        typer.echo(message, err=True)
    raise typer.Exit(code)


def _as_dict(problem: Any) -> dict[str, Any]:
    return {"file": problem.file, "line": problem.line, "message": problem.message, "fix": problem.fix}


def _print_json(value: dict[str, Any]) -> None:
    import json

    typer.echo(json.dumps(value, indent=2))
