"""`millrace up`, `down`, `status`, `doctor`: the embedded stack by hand."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared.settings import home

if TYPE_CHECKING:
    from services.stack.doctor import Check
    from services.stack.embedded import PartStatus

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(doctor)


def up(as_json: Json = False) -> None:
    """Start Kafka, the schema registry and Redis in the background; once up, calling it again changes
    nothing.
    """
    from services.stack import embedded

    with download_progress() as progress:
        endpoints = embedded.start(home(), progress)
    if as_json:
        typer.echo(json.dumps(endpoints.as_settings()))
        return
    typer.echo(f"kafka     {endpoints.bootstrap_servers}")
    typer.echo(f"registry  {endpoints.registry_url}")
    typer.echo(f"redis     {endpoints.redis_url}")
    typer.echo(f"data      {endpoints.home}")


def down() -> None:
    """Stop what `up` started in this data folder; the data stays."""
    from services.stack import embedded

    stopped = embedded.stop(home())
    typer.echo(f"stopped: {', '.join(stopped)}" if stopped else f"nothing runs in {home()}")


def status(as_json: Json = False) -> None:
    """Show what runs; exit code 1 unless every part answers."""
    from services.stack import embedded

    found = embedded.status(home())
    typer.echo(json.dumps(_status_json(home(), found)) if as_json else "\n".join(map(_status_line, found)))
    if any(part.state != "running" for part in found):
        raise typer.Exit(1)


def doctor(as_json: Json = False) -> None:
    """Check what the stack and the services need, and say what to do; exit code 1 when something is wrong."""
    from services.stack import doctor as checks

    found = checks.examine(home())
    if as_json:
        typer.echo(json.dumps({"ok": all(c.ok for c in found), "checks": [c.as_json() for c in found]}))
    else:
        typer.echo("\n".join(map(_check_line, found)))
    if not all(check.ok for check in found):
        raise typer.Exit(1)


@contextmanager
def download_progress() -> Iterator[Progress | None]:
    """A progress bar a file on standard error, when that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:

        @contextmanager
        def one(name: str, size: int) -> Iterator[Callable[[int], None]]:
            task = bars.add_task(name, total=size)
            yield lambda count: bars.advance(task, count)
            bars.remove_task(task)

        yield one


def _status_json(folder: Path, found: "list[PartStatus]") -> dict[str, object]:
    """The status as one document."""
    parts = {
        part.name: {
            "state": part.state,
            "detail": part.detail,
            "pid": part.pid,
            "port": part.port,
            "log": str(part.log),
        }
        for part in found
    }
    return {"home": str(folder), "ok": all(part.state == "running" for part in found), "parts": parts}


def _status_line(part: "PartStatus") -> str:
    """One part for people."""
    where = f"port {part.port}, process {part.pid}, " if part.pid else ""
    return f"{part.name:9} {part.state:8} {where}{part.detail}"


def _check_line(check: "Check") -> str:
    """One check for people."""
    return f"{'ok ' if check.ok else 'BAD'} {check.name:10} {check.detail}" + (
        f"\n               -> {check.next_step}" if check.next_step else ""
    )
