"""What models come to in service, as curves: figures of scores.v1 on the TensorBoard of the pipeline."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from services.retrainer.board import LiveBoard
from services.retrainer.reading import readable
from shared.control.records import Record, Records
from shared.runtime.polled import Polled

ROLLING, PROVISIONAL = "rolling", "provisional"


class Live:
    """A handler for scores.v1. After a kill a figure may be written twice, which a curve does not show."""

    def __init__(self, folder: Path) -> None:
        self._board = LiveBoard(folder)

    async def scored(self, scores: Records, polled: Polled) -> None:
        """Write the newest figures; those of days, and those that repeat them as final, are no curves."""
        said = [
            each
            for each in readable(scores, polled)
            if (each["window"], each["state"]) == (ROLLING, PROVISIONAL)
        ]
        if said:
            await asyncio.to_thread(self._write, said)

    def _write(self, said: Sequence[Record]) -> None:
        for each in said:
            self._board.add(tag_of(each), each["value"], each["total"], each["order_time"])
        self._board.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._board.close()


def tag_of(score: Record) -> str:
    """Under which name a figure's curve stands.

    >>> tag_of({"metric": "log_loss", "slice": "all", "model_version": 3, "role": "canary"})
    'log_loss/all/v3-canary'
    """
    return f"{score['metric']}/{score['slice']}/v{score['model_version']}-{score['role']}"
