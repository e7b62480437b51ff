"""The `millrace` command: one module a group of commands, each of which registers its own.

Exit codes: 0 done; 1 a check found something; 2 the command line is wrong; 70 fatal, going on would lose or
double something; 75 something is away, the same command may succeed later; 78 refused, the request, the
declaration or the machine must change first.
"""

import importlib
import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from services.stack.bytecode import keep_bytecode
from shared.errors import Fatal, MillraceError, Retry
from shared.settings import home

MODULES = (
    "stack",
    "run",
    "schemas",
    "init",
    "datasets",
    "replay",
    "loop",
    "dlq",
    "features",
    "models",
    "whatif",
    "demo",
    "truth",
    "bench",
)


def build() -> typer.Typer:
    """The whole command."""
    app = typer.Typer(
        name="millrace",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Event-driven machine learning on Kafka.",
    )
    for name in MODULES:
        importlib.import_module(f"services.cli.{name}").register(app)
    return app


def exit_code(error: MillraceError) -> int:
    """What the shell is told about an error, by the meanings of sysexits."""
    if isinstance(error, Retry):
        return 75
    return 70 if isinstance(error, Fatal) else 78


def main() -> None:
    """Entry point of the console script: a Millrace error is shown as its message and ends in its exit
    code. SIGTERM and a terminal that goes unwind as an error does, so that what was started is stopped.
    """
    keep_bytecode(home())
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    try:
        build()()
    except MillraceError as error:
        sys.stderr.write(f"millrace: {error}\n")
        raise SystemExit(exit_code(error)) from None


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
