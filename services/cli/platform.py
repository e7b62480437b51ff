"""The platform that a command needs: the one that runs, or an embedded one for the length of the command."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.cli.stack import download_progress
from services.stack import embedded
from shared.contracts.pipeline import Pipeline
from shared.kafka.admin import ensure_topics
from shared.kafka.registry import Registry, register_pipeline
from shared.settings import PlatformSettings, home


def prepare(pipeline: Pipeline) -> tuple[PlatformSettings, dict[str, int]]:
    """The platform with the pipeline's topics and contracts on it, and the ids of these by topic name."""
    platform = PlatformSettings()
    ensure_topics(platform.kafka, pipeline)
    with Registry(platform.registry) as registry:
        return platform, register_pipeline(registry, pipeline)


@contextmanager
def running_platform() -> Iterator[Path]:
    """Give the home of a running platform; one that was started here is stopped at the end.

    With `MILLRACE_KAFKA__BOOTSTRAP_SERVERS` set, nothing is started: the cluster is yours.
    """
    folder = home()
    if os.environ.get("MILLRACE_KAFKA__BOOTSTRAP_SERVERS"):
        yield folder
        return
    ours = not all(part.state == "running" for part in embedded.status(folder))
    with download_progress() as progress:
        embedded.start(folder, progress)
    try:
        yield folder
    finally:
        if ours:
            # Clients that wait for the collector would complain of the broker's going.
            gc.collect()
            embedded.stop(folder)
