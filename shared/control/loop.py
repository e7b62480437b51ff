"""A service at control rate: Faust agents over a few topics, one handler a topic, one way to end.

The order of one batch, for every input:

1. the handler is given what has gathered, in offset order, once the batch before is done with,
2. it writes what follows through `publish`, which returns when the broker has it,
3. only then is the batch done, and the group's offset may pass it.

So a record is never lost and may come again after a kill: what a handler does must bear that. A handler that
raises ends the process; its batch, and all that came behind it, will come again.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import faust
import numpy as np
from faust.types import EventT
from pydantic import BaseModel, ConfigDict

from shared.codec.batch import Strings
from shared.control.app import make_app
from shared.control.driver import CommittedConsumer
from shared.control.publisher import Publisher
from shared.errors import Fatal
from shared.runtime.entry import MetricsPublisher, Start, tell_address
from shared.runtime.health import Health, serve
from shared.runtime.instruments import Instruments
from shared.runtime.polled import Polled
from shared.runtime.unit import Out
from shared.settings import home

Handler = Callable[[Polled], Awaitable[None]]
Task = Callable[[], Awaitable[None]]
STOP_S = 10.0


class ControlSettings(BaseModel):
    """What every service at control rate can be told of its loop."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    health_host: str = "127.0.0.1"
    """Interface of the health and metrics endpoint."""
    health_port: int = 0
    """Its port; 0 takes a free one, told in `$MILLRACE_HOME/run/<pipeline>.<service>-<slot>.json`."""
    metrics_interval_s: float = 5.0
    """How often metrics go to the metrics topic."""
    session_s: float = 10.0
    """How long a slot that died keeps the partitions from another; the same slot goes on at once."""
    leave_s: float = 10.0
    """How long a handler may go on after a signal asked to stop; then it is cancelled, its batch comes again."""


@dataclass(slots=True)
class _Input:
    """A topic, its handler, and the events that wait for it."""

    topic: str
    handle: Handler
    most: int
    waiting: list[EventT[bytes]] = field(default_factory=list)
    more: asyncio.Event = field(default_factory=asyncio.Event)
    room: asyncio.Event = field(default_factory=asyncio.Event)


class Control:
    """One service of one pipeline: give it handlers with `on`, `every` and `beside`, then `run` it."""

    def __init__(self, start: Start, service: str, slot: int, settings: ControlSettings) -> None:
        self.start, self.service, self.slot, self._settings = start, service, slot, settings
        self.health = Health()
        self.seen = Instruments.on(start.metrics)
        self._inputs: list[_Input] = []
        self._tasks: list[Task] = []
        self._publisher: Publisher | None = None
        self._leaving = asyncio.Event()

    @property
    def group(self) -> str:
        """The consumer group."""
        return f"millrace.{self.start.pipeline.name}.{self.service}"

    @property
    def leaving(self) -> bool:
        """Whether a signal asked to stop: a long handler may give up now; its batch comes again."""
        return self._leaving.is_set()

    def on(self, topic: str, most: int = 1_000) -> Callable[[Handler], Handler]:
        """Let the function handle the records of `topic` (its name on the broker), at most `most` at a time."""

        def take(handle: Handler) -> Handler:
            self._inputs.append(_Input(topic, handle, most))
            return handle

        return take

    def every(self, seconds: float) -> Callable[[Task], Task]:
        """Let the function be called every so many seconds, beside the handlers."""

        def take(task: Task) -> Task:
            async def turn() -> None:
                while not self.leaving:
                    await task()
                    await self._pause(seconds)

            self._tasks.append(turn)
            return task

        return take

    def beside(self, task: Task) -> Task:
        """Let the function run beside the handlers from the start; it is cancelled at the end."""
        self._tasks.append(task)
        return task

    async def publish(self, outs: Sequence[Out]) -> None:
        """Write records and return when the broker has them all; Fatal where it does not take them."""
        if self._publisher is None:
            raise Fatal("publish is for handlers and tasks: the service does not run yet")
        await self._publisher.write(outs)
        for out in outs:
            self.seen.outputs.labels(out.topic).inc(len(out.values))

    def run(self) -> None:
        """Run until a signal asks to stop; the batches under way are finished and committed first.

        Raises:
            Refused: the settings cannot be used.
            Fatal: going on would lose something, or Faust gave up on the broker.
        """
        settings = self._settings
        server = serve(self.health, self.start.metrics, settings.health_host, settings.health_port)
        told = MetricsPublisher(self.start, self.service, self.slot)
        url = f"http://{settings.health_host}:{server.server_port}"
        note = tell_address(self.start.pipeline.name, self.service, self.slot, url)
        self._publisher = Publisher(self.start.platform.kafka)
        try:
            asyncio.run(self._main(told))
        finally:
            told.close()
            self._publisher.close()
            server.shutdown()
            server.server_close()
            note.unlink(missing_ok=True)

    async def _main(self, told: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave)
        folder, session_s = home() / "faust" / self.group, self._settings.session_s
        app = make_app(self.start.platform.kafka, self.group, self.slot, folder, session_s)
        for each in self._inputs:
            app.agent(app.topic(each.topic, key_type=bytes, value_type=bytes), name=each.topic)(_agent(each))
        app.on_partitions_revoked.connect(cast(Any, self._revoked))
        app.on_partitions_assigned.connect(cast(Any, self._assigned))
        handlers = [asyncio.create_task(self._work(app, each)) for each in self._inputs]
        tasks = [asyncio.create_task(_run(task)) for task in self._tasks]
        beats = asyncio.create_task(self._beat(told))
        try:
            await app.start()
            await self._watch(app, handlers, [*tasks, beats])
        finally:
            for task in [*handlers, *tasks, beats]:
                task.cancel()
            await asyncio.gather(*handlers, *tasks, beats, return_exceptions=True)
            await _stop(app)

    def _leave(self) -> None:
        self._leaving.set()
        for each in self._inputs:
            each.more.set()
            each.room.set()

    async def _watch(
        self, app: faust.App, handlers: list[asyncio.Task[None]], tasks: list[asyncio.Task[None]]
    ) -> None:
        """Return when all handlers have left after a signal; raise what any part raised before."""
        crashed = asyncio.create_task(app._crashed.wait())
        leaving = asyncio.create_task(self._leaving.wait())
        ends: set[asyncio.Task[Any]] = {*handlers, *tasks, crashed, leaving}
        try:
            while ends and not leaving.done():
                done, ends = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                self._raise(app, done)
            if handlers:
                done, _ = await asyncio.wait(handlers, timeout=self._settings.leave_s)
                self._raise(app, done)
        finally:
            crashed.cancel()
            leaving.cancel()

    def _raise(self, app: faust.App, done: set[asyncio.Task[Any]]) -> None:
        for task in done:
            error = task.exception() if not task.cancelled() else None
            if error is not None:
                raise error
        if app.crashed:
            raise Fatal(f"Faust gave up: {app.crash_reason!r}; is the broker running?")

    async def _work(self, app: faust.App, each: _Input) -> None:
        """Hand batch after batch to the handler."""
        while True:
            await each.more.wait()
            if self.leaving:
                return
            events, each.waiting = each.waiting[: each.most], each.waiting[each.most :]
            if not each.waiting:
                each.more.clear()
            if len(each.waiting) < each.most:
                each.room.set()
            for batch in _runs(events):
                await self._handle(app, each, batch)

    async def _handle(self, app: faust.App, each: _Input, events: list[EventT[bytes]]) -> None:
        polled = to_polled(events)
        await each.handle(polled)
        last = int(polled.offsets[-1])
        consumer: Any = app.consumer
        if isinstance(consumer, CommittedConsumer):
            consumer.done(polled.topic, polled.partition, last + 1)
        self.seen.records.labels(polled.topic).inc(len(polled))
        end = consumer.highwater(events[-1].message.tp)
        self.seen.lag_messages.labels(polled.topic, str(polled.partition)).set(max(0, end - last - 1))

    async def _beat(self, told: Callable[[], None]) -> None:
        """Say that the loop comes round, and publish metrics."""
        count = 0
        while True:
            self.health.beat()
            if count % max(1, round(self._settings.metrics_interval_s)) == 0:
                told()
            count += 1
            await asyncio.sleep(1.0)

    async def _revoked(self, _app: Any, *_given: Any, **_more: Any) -> None:
        """What waits comes again, here or at another slot, from what was committed."""
        for each in self._inputs:
            each.waiting.clear()
            each.more.clear()
            each.room.set()

    async def _assigned(self, _app: Any, *given: Any, **_more: Any) -> None:
        assigned = given[0]
        self.seen.units.set(len(assigned))
        self.health.ready = True
        self.health.detail = f"{len(assigned)} partitions" if assigned else "another slot has the partitions"

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._leaving.wait(), seconds)


def _agent(each: _Input) -> Callable[[Any], Awaitable[None]]:
    async def gather(stream: Any) -> None:
        events: AsyncIterator[EventT[bytes]] = stream.noack().events()
        async for event in events:
            each.waiting.append(event)
            each.more.set()
            if len(each.waiting) >= 2 * each.most:
                each.room.clear()
                await each.room.wait()

    return gather


async def _run(task: Task) -> None:
    await task()


async def _stop(app: faust.App) -> None:
    """Commit what is done and leave the group; Faust may hang on a broker that is gone, the process must not."""
    with suppress(TimeoutError):
        await asyncio.wait_for(app.stop(), STOP_S)


def _runs(events: list[EventT[bytes]]) -> list[list[EventT[bytes]]]:
    """The events cut where the partition changes, or where the group took a step back."""
    runs: list[list[EventT[bytes]]] = []
    for event in events:
        before = runs[-1][-1].message if runs else None
        if before is None or before.tp != event.message.tp or before.offset >= event.message.offset:
            runs.append([])
        runs[-1].append(event)
    return runs


def to_polled(events: Sequence[EventT[bytes]]) -> Polled:
    """Events of one partition as columns."""
    messages = [event.message for event in events]
    keys, values = [m.key for m in messages], [m.value for m in messages]
    return Polled(
        topic=messages[0].topic,
        partition=messages[0].partition,
        keys=Strings.of([key or b"" for key in keys]),
        key_null=np.array([key is None for key in keys], np.bool_),
        values=Strings.of([value or b"" for value in values]),
        value_null=np.array([value is None for value in values], np.bool_),
        offsets=np.array([m.offset for m in messages], np.int64),
        timestamps=np.array([round((m.timestamp or 0.0) * 1_000) for m in messages], np.int64),
    )
