"""A pipeline's services on one machine for the length of a task: start, watch what comes out, stop."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, TopicPartition

from services.cli.lockstep import TIMEOUT_S, Lockstep
from services.cli.platform import prepare
from services.cli.replaying import Pace, Replay, Summary
from services.cli.replaying import Watch as ReplayWatch
from services.cli.script import Script
from services.cli.standstill import Standstill
from services.stack.supervisor import RestartPolicy, Services, Supervisor, Worker, plan_of, run_folder
from shared.codec.batch import Batch
from shared.contracts.pipeline import Pipeline, load_pipeline
from shared.errors import Fatal, Retry
from shared.kafka.config import client_config
from shared.kafka.reader import open_reader, partitions_of, read_topic
from shared.runtime.tables import Table
from shared.settings import KafkaSettings, PlatformSettings, home
from shared.topics import ACCEPTED, EVENTS, LABELS, REPLAYS, stage_topic

FULL_SPEED = Pace()
# Before the first record services start, and compile their kernels when they run for the first time here.
FIRST_S = 300.0


class Watch:
    """Counts the committed records of one topic as they come, by partition."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._reader: Consumer = open_reader(settings)
        self.counts = dict.fromkeys(partitions_of(self._reader, topic), 0)
        self._reader.assign([TopicPartition(topic, partition, 0) for partition in self.counts])

    def poll(self, timeout_s: float = 0.1) -> int:
        """Count what has come; return the total so far."""
        for message in self._reader.consume(10_000, timeout=timeout_s):
            error = message.error()
            if error is None:
                self.counts[message.partition() or 0] += 1
            elif error.code() != KafkaError._PARTITION_EOF and not _passing(error):
                raise Retry(str(error))
        return sum(self.counts.values())

    def close(self) -> None:
        """Let go of the client."""
        self._reader.close()


def _passing(error: KafkaError) -> bool:
    """Whether the client goes on by itself: the broker may be restarting."""
    return bool(error.retriable()) or error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)


@dataclass(slots=True)
class Journey:
    """Runs the pipeline declared in `folder` with `workers` by service; a context manager.

    The folder's parent becomes the services' `MILLRACE_SCHEMAS`. By default the data path runs alone; with
    `services="loop"` everything that is declared does.
    """

    folder: Path
    workers: Mapping[str, int] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    only: Sequence[str] | None = None
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    services: Services = "data"
    pipeline: Pipeline = field(init=False)
    schema_ids: dict[str, int] = field(init=False)
    platform: PlatformSettings = field(init=False)
    supervisor: Supervisor = field(init=False)

    def __post_init__(self) -> None:
        self.pipeline = load_pipeline(self.folder)
        self.platform, self.schema_ids = prepare(self.pipeline)

    def __enter__(self) -> Self:
        environment = {
            **os.environ,
            "MILLRACE_HOME": str(home()),
            "MILLRACE_SCHEMAS": str(self.folder.parent.absolute()),
            **self.environment,
        }
        self.supervisor = Supervisor(
            self._planned(), run_folder(home(), self.pipeline.name), environment, self.policy
        )
        self.supervisor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.supervisor.stop()

    def _planned(self) -> list[Worker]:
        planned = plan_of(self.pipeline, self.workers, self.services)
        if self.only is None:
            return planned
        return [w for w in planned if any(w.service.startswith(name) for name in self.only)]

    def topic(self, name: str) -> str:
        """A topic's name on the broker."""
        return f"{self.pipeline.name}.{name}"

    def wait_for(
        self,
        topic: str,
        expected: int,
        stall_s: float = 60.0,
        progress: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Wait until `expected` committed records lie in `topic`; return how many there are then.

        Raises:
            Fatal: nothing more came for `stall_s` seconds.
            FuseBlown: a service died too often.
        """
        watch = Watch(self.platform.kafka, topic)
        try:
            count, last = 0, time.monotonic()
            while count < expected:
                self.supervisor.check()
                now = watch.poll()
                if now > count:
                    count, last = now, time.monotonic()
                    progress(count)
                elif time.monotonic() - last > (stall_s if count else max(stall_s, FIRST_S)):
                    logs = run_folder(home(), self.pipeline.name)
                    raise Fatal(
                        f"{topic} stands at {count} of {expected} records for {stall_s:.0f} s; "
                        f"see the logs in {logs}"
                    )
            return count
        finally:
            watch.close()

    def replay(
        self, script: Script, pace: Pace = FULL_SPEED, watch: ReplayWatch = lambda _s, _t: None
    ) -> Summary:
        """Send a script's records; returns when the broker has them all."""
        return Replay(self.platform.kafka, self.pipeline, self.schema_ids, script, pace, watch).run()

    def replay_in_steps(
        self,
        script: Script,
        size: int,
        timeout_s: float = TIMEOUT_S,
        watch: ReplayWatch = lambda _s, _t: None,
    ) -> Summary:
        """Send a script in lockstep, `size` events a step; the services run already.

        Raises:
            Retry: a step was not over within `timeout_s` seconds.
            FuseBlown: a service died too often.
        """
        kafka, declared, ids = self.platform.kafka, self.pipeline, self.schema_ids
        services, check = self._services(), self.supervisor.check
        with Lockstep.of(kafka, declared, ids, script, size, services, timeout_s, FIRST_S, check) as steps:
            return Replay(kafka, declared, ids, script, FULL_SPEED, watch, steps, check).run()

    def settle(self, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until no service has anything to read and the workers obey the newest announcement.

        Raises:
            Retry: that was not so within `timeout_s` seconds.
            FuseBlown: a service died too often.
        """
        kafka, check = self.platform.kafka, self.supervisor.check
        standstill = Standstill(kafka, self.pipeline, self.schema_ids, self._services(), FIRST_S, check)
        try:
            Lockstep((), standstill, timeout_s).rest_over(check)
        finally:
            standstill.close()

    def _services(self) -> list[str]:
        return list(dict.fromkeys(worker.service for worker in self._planned()))

    @contextmanager
    def replaying(self, script: Script, pace: Pace = FULL_SPEED) -> Iterator[Callable[[], None]]:
        """Send a script's records beside the block; the replay is announced before the block begins.

        Services that start inside the block hear of the replay before they can call a source idle. The block is
        given a function that waits for the end of the replay.
        """
        before = Watch(self.platform.kafka, self.topic(REPLAYS.name))
        count = before.poll(1.0)
        failures: list[BaseException] = []

        def send() -> None:
            try:
                self.replay(script, pace)
            except BaseException as failure:  # raised again below, in the caller's thread
                failures.append(failure)

        thread = threading.Thread(target=send, name="replay", daemon=True)
        thread.start()
        while before.poll() <= count and thread.is_alive():
            pass
        before.close()

        def wait() -> None:
            thread.join()
            if failures:
                raise failures[0]

        yield wait
        wait()

    def committed(self) -> dict[str, int]:
        """What the groups of ingest and of the features stages have committed, by group, topic and partition."""
        name = self.pipeline.name
        entities = self.pipeline.entities
        inputs = {
            "ingest": [EVENTS.of(name), LABELS.of(name)],
            f"features-{entities[0].name}": [ACCEPTED.of(name)],
        }
        inputs |= {f"features-{e.name}": [stage_topic(e.name).of(name)] for e in entities[1:]}
        found = {}
        for stage, topics in inputs.items():
            asking = Consumer({**client_config(self.platform.kafka), "group.id": f"millrace.{name}.{stage}"})
            places = [TopicPartition(t, p) for t in topics for p in range(self.pipeline.partitions)]
            for place in asking.committed(places, timeout=30.0):
                found[f"{stage} {place.topic}/{place.partition}"] = place.offset
            asking.close()
        return found

    def rest(self, quiet_s: float, limit_s: float = 120.0) -> None:
        """Wait until no group has committed anything for `quiet_s` seconds.

        Raises:
            Fatal: something still moves after `limit_s` seconds.
        """
        deadline = time.monotonic() + limit_s
        before, since = self.committed(), time.monotonic()
        while time.monotonic() - since < quiet_s:
            if time.monotonic() > deadline:
                raise Fatal(f"{self.pipeline.name} does not come to rest within {limit_s:.0f} s")
            time.sleep(0.5)
            now = self.committed()
            if now != before:
                before, since = now, time.monotonic()

    def rows(self, topic: str, schema: dict[str, Any], columns: Sequence[str]) -> Batch:
        """All committed records of a topic, of its registered `schema`, as these columns."""
        return read_rows(self.platform, Table.of(topic, self.schema_ids[topic], schema), columns)


def read_rows(platform: PlatformSettings, table: Table, columns: Sequence[str]) -> Batch:
    """All committed records of an inner topic as columns; texts in buffers of their own."""
    parts = []
    for polled in read_topic(platform.kafka, table.topic):
        batch = table.read(polled)
        parts.append(Batch({name: batch[name] for name in columns}, batch.rows))
    return Batch.concat(parts) if parts else Batch()
