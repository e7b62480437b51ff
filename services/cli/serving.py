"""A pipeline's services for the length of a command, where nobody runs them."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from services.stack import process
from services.stack.supervisor import Supervisor, plan_of, run_folder
from shared.contracts.pipeline import Pipeline
from shared.settings import home

GRACE_S = 5.0
"""So long a `millrace run` that was typed just before may take to start its first worker."""
PAUSE_S = 0.1


@contextmanager
def served(pipeline: Pipeline, grace_s: float = GRACE_S) -> Iterator[Callable[[], None]]:
    """The services of `pipeline`, which is prepared, on the platform that runs.

    What runs already is used and left alone; what was started here is stopped behind the block. On a cluster of
    your own nothing is started. The block is given what to call while it waits for them: that raises `FuseBlown`
    where the services that were started here have given up.
    """
    external = bool(os.environ.get("MILLRACE_KAFKA__BOOTSTRAP_SERVERS"))
    if external or is_run(pipeline.name, grace_s):
        yield lambda: None
        return
    logs = run_folder(home(), pipeline.name)
    typer.echo(f"nobody runs {pipeline.name}: its services run with this command; logs in {logs}", err=True)
    with Supervisor(plan_of(pipeline), logs) as supervisor:
        yield supervisor.check


def is_run(name: str, grace_s: float = 0.0) -> bool:
    """Whether a worker of the pipeline lives on this machine, or begins to within `grace_s` seconds."""
    folder, deadline = run_folder(home(), name), time.monotonic() + grace_s
    while not (found := any(process.recall(file) is not None for file in folder.glob("*.pid"))):
        if time.monotonic() >= deadline:
            break
        time.sleep(PAUSE_S)
    return found
