"""Send a script's records to events.v1 and labels.v1, and say on replays.v1 how far that has come.

Before the first record the replay says that it is open; while it sends, what the broker has acknowledged is
told 40 times a second; at the end it says that it is closed. An idempotent producer with one request under way
keeps the order within a partition, so the acknowledgement of a chunk's last record there stands for all before it.
A broker that dies may make it write a request twice, never lose one; ingest drops repeats by their id.

In lockstep it says STEP, sends so many events, waits until all services rest, says REST, and waits again.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource

from services.cli.script import Script
from shared.codec.batch import Batch
from shared.codec.frame import frame_prefix
from shared.codec.program import Program, compile_program
from shared.contracts.pipeline import Pipeline
from shared.errors import Refused, Retry
from shared.kafka.config import client_config
from shared.kafka.reader import bounds, open_reader
from shared.kafka.transactions import ONE_IN_FLIGHT, producer_config
from shared.runtime.control import CLOSED, OPEN, REST, STEP, ReplayWord, source_name
from shared.runtime.merge import EVENT
from shared.settings import KafkaSettings
from shared.topics import EVENTS, LABELS, REPLAYS

CHUNK = 2_000
"""Most records between two looks at the clock and the acknowledgements."""
AHEAD = 100
"""Most chunks sent and not yet acknowledged: bounds memory and how far the word lags."""
SAY_EVERY_S = 0.025
HEARTBEAT_S = 1.0
LEASE_MS = 10_000
STEP_LEASE_MS = 60_000
"""In lockstep: what a service does between two words may take the whole machine."""
FLUSH_S = 60.0
OPEN_WAIT_S = 1.0
"""Between the first word and the first record: a running system takes its idle sources back, stage by stage."""

Watch = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast: `rate` events a second, or `speed` times real time, or as fast as it goes (neither)."""

    rate: float | None = None
    speed: float | None = None

    def __post_init__(self) -> None:
        if self.rate is not None and self.speed is not None:
            raise Refused("give a rate or a speed, not both")
        if (self.rate is not None and self.rate <= 0) or (self.speed is not None and self.speed <= 0):
            raise Refused("rate and speed are greater than 0")


@dataclass(frozen=True, slots=True)
class Summary:
    """What a replay sent; times are order times in milliseconds UTC."""

    id: str
    events: int
    labels: int
    seconds: float
    first_order_time: int
    last_order_time: int
    next_offsets: dict[str, int]

    @property
    def per_second(self) -> float:
        """Records a second, labels included."""
        return (self.events + self.labels) / max(self.seconds, 1e-9)


class Steps(Protocol):
    """How a replay in lockstep is cut, and who waits between its steps."""

    @property
    def ranges(self) -> Sequence[tuple[int, int]]:
        """Records `begin` to `end` of each step."""
        ...

    def step_over(self, come_to: int, beat: Callable[[], None]) -> None:
        """Return when what was sent before the order time `come_to` has gone through; call `beat` often."""
        ...

    def rest_over(self, beat: Callable[[], None]) -> None:
        """Return when what the step led to is in force."""
        ...


@dataclass(slots=True)
class _Chunk:
    """Records under way: acknowledgements still awaited, the offsets so far, and what may be said after."""

    awaited: int
    come_to: int
    offsets: dict[str, int] = field(default_factory=dict)


class Replay:
    """One replay of a script; `run` sends it all.

    Args:
        kafka: how to reach the broker; the pipeline's topics exist.
        pipeline: the declaration.
        schema_ids: registered ids by topic name.
        script: what to send.
        pace: how fast.
        watch: told (records sent, records in all) now and then.
        steps: cuts it into steps, for lockstep.
        check: called while it sends and waits; raises where the services have given up.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        pipeline: Pipeline,
        schema_ids: dict[str, int],
        script: Script,
        pace: Pace = Pace(),
        watch: Watch = lambda _sent, _total: None,
        steps: Steps | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.id = f"replay-{uuid4()}"
        self._kafka, self._script, self._pace, self._watch = kafka, script, pace, watch
        self._steps, self._state, self._check_services = steps, OPEN, check
        name = pipeline.name
        self._topics = {EVENT: EVENTS.of(name)}
        programs = {EVENT: compile_program(pipeline.event.avro)}
        if pipeline.label is not None:
            self._topics[1 - EVENT] = LABELS.of(name)
            programs[1 - EVENT] = compile_program(pipeline.label.avro)
        self._programs: dict[int, Program] = programs
        self._prefixes = {kind: frame_prefix(schema_ids[topic]) for kind, topic in self._topics.items()}
        self._control = REPLAYS.of(name)
        self._control_prefix = frame_prefix(schema_ids[self._control])
        self._partitions = pipeline.partitions
        self._open: deque[_Chunk] = deque()
        self._offsets: dict[str, int] = {}
        self._come_to = int(script.order[0])
        self._said_at = 0.0
        self._said_to = 0
        self._settled_at = time.monotonic()
        self._failure: str | None = None
        self._complaint = ""
        # A broker that is away for a while is no news for the terminal: what it came to is, in the error.
        self._producer = Producer({**replay_config(kafka), "error_cb": self._error, "log_level": 2})

    def run(self) -> Summary:
        """Send everything; returns once the broker has acknowledged it and the replay is closed.

        Raises:
            Retry: the broker did not take a record; the replay is closed, or its lease ends it.
            FuseBlown: `check` says that the services have given up.
        """
        started = time.monotonic()
        self._offsets = self._ends()
        with self._announced():
            if self._steps is None:
                self._send_range(0, len(self._script), _schedule(self._script, self._pace), started)
            else:
                self._step_through(self._steps)
        kinds = self._script.kind
        events = int(np.count_nonzero(kinds == EVENT))
        return Summary(
            id=self.id,
            events=events,
            labels=int(kinds.size) - events,
            seconds=time.monotonic() - started,
            first_order_time=int(self._script.order[0]),
            last_order_time=int(self._script.order[-1]),
            next_offsets=dict(self._offsets),
        )

    def _ends(self) -> dict[str, int]:
        """Where each partition stands before the first record; one that gets nothing has come to its end."""
        reader = open_reader(self._kafka)
        try:
            return {
                source_name(topic, partition): bounds(reader, topic, partition)[1]
                for topic in self._topics.values()
                for partition in range(self._partitions)
            }
        finally:
            reader.close()

    @contextmanager
    def _announced(self) -> Iterator[None]:
        """Open before, closed after, also when the sending is broken off: what was sent stays true."""
        self._say(OPEN)
        self._flush()
        time.sleep(OPEN_WAIT_S)
        try:
            yield
        finally:
            left = self._producer.flush(FLUSH_S)
            self._settle()
            self._say(CLOSED)
            left += self._producer.flush(FLUSH_S)
        self._check()
        if left or self._open:
            raise Retry("the broker did not acknowledge every record in time; replay again what is missing")

    def _step_through(self, steps: Steps) -> None:
        """Step after step; before the first one whatever was there already comes to rest."""
        steps.rest_over(self._beat)
        for begin, end in steps.ranges:
            self._declare(STEP)
            self._send_range(begin, end, lambda _elapsed_s, end=end: end, 0.0)  # type: ignore[misc]
            self._flush()
            self._settle()
            self._declare(STEP)
            steps.step_over(self._come_to, self._beat)
            self._declare(REST)
            steps.rest_over(self._beat)

    def _declare(self, state: str) -> None:
        """Say something that others wait for."""
        self._state = state
        self._say(state)
        self._flush()

    def _beat(self) -> None:
        """Stay alive while others work, and as long as they do."""
        self._producer.poll(0)
        self._check()
        self._check_services()
        self._say_when_due()

    def _send_range(self, begin: int, end: int, schedule: Callable[[float], int], started: float) -> None:
        sent = begin
        self._settled_at = time.monotonic()
        while sent < end:
            until = min(schedule(time.monotonic() - started), sent + CHUNK, end)
            if until > sent and len(self._open) < AHEAD:
                self._send(sent, until)
                sent = until
                self._producer.poll(0)
            else:
                self._producer.poll(0.002)
            self._settle()
            self._check()
            self._check_services()
            self._check_pulse()
            self._say_when_due()
            self._watch(sent, len(self._script))

    def _send(self, begin: int, end: int) -> None:
        """Queue records `begin` to `end`; the last one of each partition reports back."""
        script = self._script
        kind, row = script.kind[begin:end], script.row[begin:end]
        partitions = script.partitions[row]
        _, last = np.unique((kind * self._partitions + partitions)[::-1], return_index=True)
        come_to = int(script.order[end]) if end < len(script) else int(script.order[-1]) + 1
        chunk = _Chunk(awaited=int(last.size), come_to=come_to)
        self._open.append(chunk)
        report: list[Any] = [None] * (end - begin)
        told = partial(self._delivered, chunk)
        for at in (end - begin - 1 - last).tolist():
            report[at] = told
        # As the client takes them by position: `callback`, its alias `on_delivery`, then the timestamp.
        records = zip(
            [self._topics[k] for k in kind.tolist()],
            self._values(kind, row),
            script.keys.take(row).compact().to_list(),
            partitions.tolist(),
            report,
            repeat(None),
            script.order[begin:end].tolist(),
        )
        produce = self._producer.produce
        for record in records:
            try:
                produce(*record)
            except (BufferError, KafkaException):
                self._put(*record)

    def _put(self, *record: Any) -> None:
        """Queue one record; while the queue is full, wait for the broker to take some."""
        deadline = time.monotonic() + FLUSH_S
        while True:
            try:
                return self._producer.produce(*record)
            except BufferError as full:
                if time.monotonic() > deadline:
                    raise Retry(self._no_answer("made no room")) from full
                self._producer.poll(0.1)
            except KafkaException as failure:
                raise Retry(f"a record was not taken: {failure.args[0]}") from failure

    def _values(self, kind: Any, row: Any) -> list[bytes]:
        """Framed values of the records, in their order."""
        values: list[bytes] = [b""] * int(row.size)
        for which, program in self._programs.items():
            at = np.flatnonzero(kind == which)
            batch: Batch | None = self._script.events if which == EVENT else self._script.labels
            if at.size and batch is not None:
                encoded = program.encode(batch.take(row[at]), self._prefixes[which]).to_list()
                if at.size == row.size:
                    return encoded
                for place, value in zip(at.tolist(), encoded, strict=True):
                    values[place] = value
        return values

    def _delivered(self, chunk: _Chunk, error: KafkaError | None, message: Message) -> None:
        offset = message.offset()
        if error is not None or offset is None:
            # The client may conclude that a record was written; only the broker knows where.
            told = error or "acknowledged without an offset"
            self._failure = f"{message.topic()}/{message.partition()}: {told}"
            return
        chunk.offsets[source_name(message.topic() or "", message.partition() or 0)] = offset + 1
        chunk.awaited -= 1

    def _settle(self) -> None:
        """Take in what has been acknowledged, chunk by chunk."""
        while self._open and not self._open[0].awaited:
            chunk = self._open.popleft()
            self._offsets |= chunk.offsets
            self._come_to = chunk.come_to
            self._settled_at = time.monotonic()

    def _say_when_due(self) -> None:
        silent = time.monotonic() - self._said_at
        if silent >= HEARTBEAT_S or (silent >= SAY_EVERY_S and self._come_to != self._said_to):
            self._say(self._state)

    def _say(self, state: str) -> None:
        lease_ms = LEASE_MS if self._steps is None else STEP_LEASE_MS
        word = ReplayWord(self.id, state, self._come_to, lease_ms, self._offsets)
        self._put(self._control, word.encode(self._control_prefix), self.id, 0)
        self._said_at, self._said_to = time.monotonic(), self._come_to

    def _flush(self) -> None:
        if self._producer.flush(FLUSH_S):
            raise Retry(self._no_answer("not taken the replay's word"))
        self._check()

    def _error(self, error: KafkaError) -> None:
        self._complaint = error.str()
        if error.fatal():
            self._failure = str(error)

    def _no_answer(self, what: str) -> str:
        heard = f" (the client's last word: {self._complaint})" if self._complaint else ""
        return f"the broker has {what} for {FLUSH_S:.0f} s{heard}; is it running?"

    def _check_pulse(self) -> None:
        if not self._open:
            self._settled_at = time.monotonic()
        elif time.monotonic() - self._settled_at > FLUSH_S:
            raise Retry(self._no_answer("acknowledged nothing"))

    def _check(self) -> None:
        if self._failure is not None:
            raise Retry(f"a record was not delivered: {self._failure}")


def replay_config(kafka: KafkaSettings) -> dict[str, Any]:
    """A producer that loses nothing and keeps the order, whatever time the records carry and whoever is killed."""
    return {
        **producer_config(kafka, "lz4"),
        **ONE_IN_FLIGHT,
        # A record that fails for good must not be passed by those behind it.
        "enable.gapless.guarantee": True,
        "delivery.timeout.ms": 0,
    }


def _schedule(script: Script, pace: Pace) -> Callable[[float], int]:
    """How many records may have been sent after so many seconds."""
    total = len(script)
    if pace.rate is not None:
        rate = pace.rate
        events = np.flatnonzero(script.kind == EVENT)

        def by_rate(elapsed_s: float) -> int:
            due = int(elapsed_s * rate) + 1
            return int(events[due]) if due < events.size else total

        return by_rate
    if pace.speed is not None:
        speed = pace.speed
        first = int(script.order[0])

        def by_time(elapsed_s: float) -> int:
            reached = first + elapsed_s * 1_000 * speed
            return int(np.searchsorted(script.order, reached, side="right"))

        return by_time
    return lambda _elapsed_s: total


def refuse_expired(kafka: KafkaSettings, pipeline: Pipeline, script: Script, now_ms: int) -> None:
    """Refused where the broker would delete the script's records for their age, read or not.

    Retention by time goes by the records' own timestamps, and those of a replay lie in the past.
    """
    topics = [EVENTS.of(pipeline.name)]
    if script.labels is not None:
        topics.append(LABELS.of(pipeline.name))
    for topic, keeps_ms in _retention(kafka, topics).items():
        if 0 <= keeps_ms < now_ms - int(script.order[0]):
            raise Refused(
                f"{topic} keeps records for {keeps_ms / 86_400_000:g} days by their own timestamps, and these are"
                " older: the broker would delete them before or after they are read; set retention.ms=-1 on it"
            )


def _retention(kafka: KafkaSettings, topics: list[str]) -> dict[str, int]:
    """`retention.ms` of each topic."""
    admin = AdminClient(client_config(kafka))
    asked = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics])
    try:
        return {
            resource.name: int(told.result(30.0)["retention.ms"].value) for resource, told in asked.items()
        }
    except (KafkaException, TimeoutError) as failure:
        raise Retry(f"the broker does not say how long it keeps {', '.join(topics)}: {failure}") from failure
