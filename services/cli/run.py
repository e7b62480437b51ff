"""`millrace run PIPELINE`: a pipeline's services on this machine, in the foreground, until SIGTERM or
Ctrl-C.
"""

import signal
import threading
from types import FrameType
from typing import Annotated

import typer

from shared.errors import Refused
from shared.settings import PlatformSettings, home


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(run)
    app.command()(topics)


def topics(pipeline: Annotated[str, typer.Argument(help="The pipeline's name.")]) -> None:
    """Create the pipeline's topics where they are missing; `run` does it by itself."""
    from shared.contracts.pipeline import find_pipeline, load_pipeline
    from shared.kafka.admin import ensure_topics

    created = ensure_topics(PlatformSettings().kafka, load_pipeline(find_pipeline(pipeline)))
    typer.echo("\n".join(created) if created else "all there")


def run(
    pipeline: Annotated[str, typer.Argument(help="The pipeline's name.")],
    workers: Annotated[
        list[str] | None, typer.Option(help="SERVICE=NUMBER, such as ingest=2; features=2 means every stage.")
    ] = None,
) -> None:
    """Run a pipeline's services; one that dies is started again, SIGTERM lets all finish their batch.

    Where no platform runs, an embedded one does for the length of the command.
    """
    from services.cli.platform import running_platform
    from services.stack.supervisor import Supervisor, plan_of, run_folder
    from shared.contracts.pipeline import find_pipeline, load_pipeline
    from shared.kafka.admin import ensure_topics
    from shared.kafka.registry import Registry, register_pipeline

    declared = load_pipeline(find_pipeline(pipeline))
    planned = plan_of(declared, parse_workers(workers or []))
    asked = _on_signal()
    with running_platform():
        platform = PlatformSettings()
        created = ensure_topics(platform.kafka, declared)
        with Registry(platform.registry) as registry:
            register_pipeline(registry, declared)
        if created:
            typer.echo(f"created {len(created)} topics", err=True)
        folder = run_folder(home(), declared.name)
        with Supervisor(planned, folder) as supervisor:
            names = ", ".join(w.name for w in planned)
            typer.echo(f"{declared.name} runs: {names}; logs in {folder}", err=True)
            while not asked.wait(0.2):
                supervisor.check()
            typer.echo("draining", err=True)


def parse_workers(given: list[str]) -> dict[str, int]:
    """The numbers of workers by service.

    >>> parse_workers(["ingest=2", "features-customer=3"])
    {'ingest': 2, 'features-customer': 3}
    """
    numbers: dict[str, int] = {}
    for text in given:
        service, _, number = text.partition("=")
        if not number.isdecimal() or not 1 <= int(number) <= 64:
            raise Refused(
                f"--workers {text}: write SERVICE=NUMBER with a number from 1 to 64, such as ingest=2"
            )
        numbers[service] = int(number)
    return numbers


def _on_signal() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        del number, frame
        asked.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    return asked
