"""Event files for TensorBoard: what each candidate of a run came to."""

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
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        writer.add_event(Event(wall_time=at_ms / 1000, step=step, summary=summary))
    writer.close()
