"""A process with one Faust consumer that writes down what it is given: `faust_worker.py TOPIC PIPELINE MODE FILE`.

A value `wait` is held until the file FILE.go appears, `boom`, `fatal` and `refused` raise. Mode `upstream` is
Faust with its own driver, the negative control. With PROBE_DROP the flow stops as the first records come.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from faust.transport.drivers import aiokafka as upstream
from prometheus_client import CollectorRegistry

from shared.contracts.pipeline import find_pipeline, load_pipeline
from shared.control.app import make_app
from shared.control.driver import CommittedConsumer
from shared.control.loop import Control, ControlSettings
from shared.errors import Fatal, Refused
from shared.runtime.entry import Start, guarded
from shared.runtime.polled import Polled
from shared.settings import PlatformSettings, home

ERRORS = {"boom": RuntimeError("boom"), "fatal": Fatal("told to"), "refused": Refused("told to")}


def say(file: Path, text: str) -> None:
    """One line, written whole."""
    with file.open("a") as out:
        out.write(text + "\n")
        out.flush()
        os.fsync(out.fileno())


async def act(file: Path, text: str) -> None:
    """What the value asks for."""
    if text in ERRORS:
        raise ERRORS[text]
    while text == "wait" and not Path(f"{file}.go").exists():
        await asyncio.sleep(0.02)


def controlled(topic: str, pipeline: str, slot: int, file: Path) -> None:
    """Run a `Control` over the topic."""
    declared = load_pipeline(find_pipeline("elec2")).model_copy(update={"name": pipeline})
    ids = {f"{pipeline}.metrics.v1": 1}
    start = Start(PlatformSettings(), declared, None, ids, CollectorRegistry())  # type: ignore[arg-type]
    session_s = float(os.environ.get("PROBE_SESSION_S", "10"))
    control = Control(start, "probe", slot, ControlSettings(session_s=session_s))

    @control.on(topic, most=int(os.environ.get("PROBE_MOST", "100")))
    async def given(polled: Polled) -> None:
        for offset, value in zip(polled.offsets.tolist(), polled.values.to_list(), strict=True):
            say(file, f"begin {offset} {value.decode()}")
            await act(file, value.decode())
        for offset in polled.offsets.tolist():
            say(file, f"done {offset}")

    guarded(control.run)


def stop_flow_once() -> None:
    """Let Faust stop its flow under the first records that were fetched, as a rebalance does."""
    fetch = CommittedConsumer._wait_next_records
    stopped = False

    async def fetched(self: CommittedConsumer, timeout: float) -> Any:
        nonlocal stopped
        found = await fetch(self, timeout)
        if found[0] and not stopped:
            stopped = True
            self.stop_flow()
            asyncio.get_running_loop().call_later(1.0, self.resume_flow)
        return found

    CommittedConsumer._wait_next_records = fetched  # type: ignore[assignment, method-assign]


async def plain(topic: str, pipeline: str, file: Path) -> None:
    """The same app with upstream's driver."""
    app = make_app(
        PlatformSettings().kafka,
        f"millrace.{pipeline}.probe",
        0,
        home() / "faust" / pipeline,
        transport=upstream.Transport,
    )

    async def given(stream: object) -> None:
        async for event in stream.events():  # type: ignore[attr-defined]
            say(file, f"begin {event.message.offset} {event.message.value.decode()}")

    app.agent(app.topic(topic, key_type=bytes, value_type=bytes))(given)
    await app.start()
    while not Path(f"{file}.go").exists():
        await asyncio.sleep(0.05)
    os._exit(0)


if __name__ == "__main__":
    name, owner, mode, place = sys.argv[1:]
    if mode == "upstream":
        asyncio.run(plain(name, owner, Path(place)))
    else:
        if "PROBE_DROP" in os.environ:
            stop_flow_once()
        controlled(name, owner, int(mode), Path(place))
