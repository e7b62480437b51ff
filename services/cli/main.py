"""The `millrace` command: one module a group of commands, each of which registers its own."""

import importlib

import typer

MODULES = ("stack", "schemas", "init", "replay", "dlq", "features", "models", "run", "demo", "truth", "bench")


def build() -> typer.Typer:
    """The whole command."""
    app = typer.Typer(name="millrace", no_args_is_help=True, help="Event-driven machine learning on Kafka.")
    for name in MODULES:
        importlib.import_module(f"services.cli.{name}").register(app)
    return app


def main() -> None:
    """Entry point of the console script."""
    build()()
