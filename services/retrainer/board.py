"""Event files for TensorBoard: what each candidate of a run came to, and what models come to in service."""

from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter


def write_events(folder: Path, figures: Mapping[str, float], step: int, at_ms: int) -> None:
    """One file in `folder` with every figure by tag at `step`; `at_ms` stands for when it was.

    A run has one step, the sequence it learnt up to, so that the runs of a pipeline make one curve.
    """
    writer = EventFileWriter(str(folder))
    for tag, value in figures.items():
        writer.add_event(_event(tag, value, step, at_ms))
    writer.close()


class LiveBoard:
    """One file in `folder` that goes on for as long as the process does; none before the first figure."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: EventFileWriter | None = None

    def add(self, tag: str, value: float, step: int, at_ms: int) -> None:
        """One figure at `step`; `at_ms` stands for when it was."""
        if self._writer is None:
            self._writer = EventFileWriter(str(self._folder))
        self._writer.add_event(_event(tag, value, step, at_ms))

    def flush(self) -> None:
        """What was added can be seen."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Let go of the file."""
        if self._writer is not None:
            self._writer.close()


def _event(tag: str, value: float, step: int, at_ms: int) -> Event:
    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
    return Event(wall_time=at_ms / 1000, step=step, summary=summary)
