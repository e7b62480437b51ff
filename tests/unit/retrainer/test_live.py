"""Figures of scores.v1 become curves of the pipeline's TensorBoard."""

import asyncio
from pathlib import Path

import numpy as np
from fastavro import parse_schema
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from schemas import platform_schema
from services.retrainer.live import Live
from shared.codec.batch import Strings
from shared.control.records import Record, Records, plain
from shared.runtime.polled import Polled

SCORES = Records("scores", 4, parse_schema(plain(platform_schema("score"))))


def score(total: int, value: float, **more: object) -> Record:
    return {
        "sequence": 2 * total,
        "order_time": total * 1_000,
        "model_version": 3,
        "model_digest": "0" * 64,
        "role": "champion",
        "slice": "all",
        "metric": "log_loss",
        "value": value,
        "rows": total,
        "total": total,
        "window": "rolling",
        "coverage": 1.0,
        "state": "provisional",
        **more,
    }


def polled(*values: bytes) -> Polled:
    none, places = np.zeros(len(values), np.bool_), np.arange(len(values))
    packed = Strings.of(list(values))
    return Polled("scores", 0, packed, none, packed, none, places, places)


def curves(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
    """Step, value and time in seconds of every scalar below a folder, by tag."""
    found: dict[str, list[tuple[int, float, float]]] = {}
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        for data in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(data)
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value, event.wall_time))
    return found


def test_live_figures_become_curves_by_metric_slice_version_and_role(tmp_path: Path) -> None:
    live = Live(tmp_path / "live")
    said = [
        score(100, 0.5),
        score(100, 0.75, metric="accuracy", slice="high", role="canary", model_version=4),
    ]
    asyncio.run(live.scored(SCORES, polled(*[SCORES.encode(each) for each in said])))
    seen = curves(tmp_path / "live")  # while the process goes on
    asyncio.run(live.scored(SCORES, polled(SCORES.encode(score(200, 0.25)))))
    live.close()
    assert seen == {
        "log_loss/all/v3-champion": [(100, 0.5, 100.0)],
        "accuracy/high/v4-canary": [(100, 0.75, 100.0)],
    }
    assert curves(tmp_path)["log_loss/all/v3-champion"] == [(100, 0.5, 100.0), (200, 0.25, 200.0)]


def test_what_is_no_figure_of_now_makes_no_curve(tmp_path: Path) -> None:
    live = Live(tmp_path / "live")
    other = [
        score(1, 0.5, window="day:2026-01-01"),
        score(1, 0.5, window="all"),
        score(1, 0.5, state="final"),
    ]
    values = [b"", b"garbage", *[SCORES.encode(each) for each in other]]
    asyncio.run(live.scored(SCORES, polled(*values)))
    live.close()
    assert not (tmp_path / "live").exists()
