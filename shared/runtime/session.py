"""One life of a worker: consumer, producer and units from a start to the next failure.

Consume a batch, give each unit its rows, and write what follows in one transaction with the consumed offsets.
Between two turns nothing is open: a rebalance, a signal or a kill finds either the batch before or the batch
after.
"""

import gc
import threading
import time

from confluent_kafka import Consumer, KafkaException, TopicPartition

from shared.errors import Fatal, Retry
from shared.kafka.admin import topic_ids
from shared.kafka.config import client_config
from shared.kafka.reader import LIMITS
from shared.kafka.transactions import PlainSink, Sink, TransactionalSink
from shared.runtime.context import Context, backoff
from shared.runtime.flight import Cargo, Flight
from shared.runtime.fuse import Fuse
from shared.runtime.intake import Held, Intake
from shared.runtime.recovery import Standing, recover, standing
from shared.runtime.snapshots import Snapshot
from shared.runtime.stage import Stage
from shared.runtime.unit import DeadLetter, Emission, Out, Unit


class Session:
    """Consumer, producer and units from one start to the next failure."""

    def __init__(self, stage: Stage, context: Context, fuse: Fuse) -> None:
        self._stage = stage
        self._context = context
        self._fuse = fuse
        self._tuning, self._seen, self._health = context.tuning, context.seen, context.health
        self._held: dict[int, Held] = {}
        self._pending: dict[int, Emission] = {}
        self._failure: Exception | None = None
        self._flight: Flight | None = None
        self._consumer: Consumer | None = None
        self._last_commit = 0.0
        self._last_told = 0.0
        self._topic_ids: dict[str, str] = {}
        self.commits = 0

    def run(self, stop: threading.Event) -> None:
        """Turn until `stop`; then commit what is open, save the state and leave the group."""
        consumer = self._consumer = Consumer(self._consumer_config())
        self._flight = Flight(self._make_sink(consumer), self._landed)
        consumer.subscribe(
            list(self._stage.inputs), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )
        intake = Intake(self._stage, self._context.kafka, consumer, self._held, self._seen)
        failed = 0
        while not stop.is_set():
            self._health.beat()
            messages = consumer.consume(self._tuning.max_records, timeout=self._tuning.poll_timeout_s)
            if self._failure is not None:
                raise self._failure
            started = time.perf_counter()
            intake.take(messages)
            self._stage.refresh()
            failed = 0 if self._fold() else failed + 1
            if messages:
                self._seen.batch_seconds.observe(time.perf_counter() - started)
            self._commit_when_due()
            self._housekeeping()
            if failed:
                stop.wait(min(backoff(failed), 1.0))
        self._commit()
        self._settle()
        self._save_all()

    def close(self) -> None:
        """Let go of the clients; never raises, whatever state they are in."""
        if self._consumer is not None:
            self._held.clear()
            self._consumer.close()
        if self._flight is not None:
            self._flight.close()

    def _make_sink(self, consumer: Consumer) -> Sink:
        kafka, compression = self._context.kafka, self._stage.compression
        if not self._tuning.transactional:
            return PlainSink(kafka, consumer, compression)
        return TransactionalSink(kafka, self._stage.transactional_id(self._context.slot), compression)

    def _consumer_config(self) -> dict[str, object]:
        return {
            **client_config(self._context.kafka),
            "group.id": self._stage.group,
            "client.id": f"{self._stage.name}-{self._context.slot}",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "partition.assignment.strategy": "range",
            "enable.partition.eof": True,
            **LIMITS,
            "fetch.queue.backoff.ms": 5,
            "fetch.wait.max.ms": 10,
            "fetch.error.backoff.ms": 50,
            "queued.max.messages.kbytes": 65_536,
            "session.timeout.ms": 10_000,
            "heartbeat.interval.ms": 1_000,
            "max.poll.interval.ms": 300_000,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 500,
        }

    # The group's word: partitions come and go only inside `consume`, between transactions.

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            starts = []
            if not self._stage.stateless and not self._topic_ids:
                self._topic_ids = topic_ids(self._context.kafka, self._stage.inputs)
            for number in sorted({place.partition for place in partitions}):
                place = standing(consumer, self._stage.inputs, number)
                unit = self._recover(number, place)
                self._held[number] = Held(unit, dict(place.next_offsets), dict(place.next_offsets))
                starts += [TopicPartition(topic, number, at) for topic, at in place.next_offsets.items()]
                self._health.beat()
            consumer.assign(starts)
            self._seen.units.set(len(self._held))
            self._health.ready, self._health.detail = True, f"{len(self._held)} partitions"
        except Exception as failure:  # the client would swallow it; the loop raises it again
            self._failure = failure

    def _recover(self, number: int, place: Standing) -> Unit:
        context = self._context
        return recover(self._stage, number, place, context.store, context.kafka, self._topic_ids)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            self._commit()
            self._settle()
            self._save_all()
        except Exception as failure:  # as above
            self._failure = failure
        self._lost(consumer, partitions)

    def _lost(self, _consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        self._held.clear()
        self._pending.clear()
        self._seen.units.set(0)

    # One turn.

    def _fold(self) -> bool:
        """Let every unit take what waits for it; False if one of them must try again later."""
        now_ms = time.time_ns() // 1_000_000
        whole = True
        for number, held in self._held.items():
            try:
                emission = held.unit.step(held.waiting, now_ms)
            except Retry as failure:
                whole = False
                self._health.detail = f"waiting: {failure}"
                self._pause(number, held, set(self._stage.inputs))
                continue
            held.waiting = []
            self._gather(number, emission)
            over = {t for t, rows in held.unit.held().items() if rows > self._tuning.pause_rows}
            self._pause(number, held, over)
        self._tell_incidents()
        return whole

    def _tell_incidents(self) -> None:
        """Let the incidents go with the transaction that passes them."""
        for number, held in self._held.items():
            if held.incidents.waiting:
                pending = self._pending.get(number, Emission())
                due = held.incidents.due(held.next_offsets | pending.next_offsets)
                if due is not None:
                    self._gather(number, due)

    def _gather(self, number: int, emission: Emission) -> None:
        self._fuse.watch(emission.good, len(emission.dead))
        if emission.late:
            self._seen.late.inc(emission.late)
        before = self._pending.get(number)
        # A unit does not know of batches that were skipped: what it says never moves an offset back.
        known = self._held[number].next_offsets | (before.next_offsets if before is not None else {})
        emission.next_offsets = {t: at for t, at in emission.next_offsets.items() if at > known.get(t, 0)}
        if before is None:
            self._pending[number] = emission
            return
        before.outs += emission.outs
        before.dead += emission.dead
        before.next_offsets |= emission.next_offsets
        before.after_commit += emission.after_commit

    def _pause(self, number: int, held: Held, wanted: set[str]) -> None:
        if wanted == held.paused or self._consumer is None:
            return
        stopping = [TopicPartition(topic, number) for topic in wanted - held.paused]
        going = [TopicPartition(topic, number) for topic in held.paused - wanted]
        if stopping:
            self._consumer.pause(stopping)
        if going:
            self._consumer.resume(going)
        held.paused = wanted

    # Commit.

    def _commit_when_due(self) -> None:
        """Commit what is pending; while a transaction is under way, rows gather for the next one."""
        pending = sum(len(out.values) for emission in self._pending.values() for out in emission.outs)
        if self._flight is not None and self._flight.busy and pending < self._tuning.most_pending:
            return
        data = any(emission.outs or emission.dead for emission in self._pending.values())
        if data or time.monotonic() - self._last_commit >= self._tuning.progress_interval_s:
            self._commit()

    def _commit(self) -> None:
        """Send off everything that is pending, and where the units have come to, in one transaction."""
        self._settle()
        outs: list[Out] = []
        dead: list[DeadLetter] = []
        offsets = []
        for number, emission in self._pending.items():
            outs += emission.outs
            dead += emission.dead
            known = self._held[number].next_offsets
            for topic, at in emission.next_offsets.items():
                if known.get(topic) != at:
                    offsets.append(TopicPartition(topic, number, at))
        for held in self._held.values():
            outs += held.unit.progress()
        self._last_commit = time.monotonic()
        emissions, self._pending = self._pending, {}
        if not outs and not dead and not offsets:
            return
        outs += self._context.letters.outs(dead)
        flight, consumer = self._clients()
        flight.start(Cargo(outs, dead, emissions), offsets, consumer.consumer_group_metadata())

    def _settle(self) -> None:
        if self._flight is not None:
            self._flight.settle()

    def _clients(self) -> tuple[Flight, Consumer]:
        if self._flight is None or self._consumer is None:
            raise Fatal("committed before the clients were there")
        return self._flight, self._consumer

    def _landed(self, cargo: Cargo, seconds: float) -> None:
        """A transaction stands."""
        self.commits += 1
        self._seen.commits.inc()
        self._seen.commit_seconds.observe(seconds)
        for out in cargo.outs:
            self._seen.outputs.labels(out.topic).inc(len(out.values))
        for letter in cargo.dead:
            self._seen.dead_letters.labels(letter.reason).inc()
        for number, emission in cargo.emissions.items():
            if number in self._held:  # not if the partition was lost meanwhile
                self._held[number].next_offsets |= emission.next_offsets
            for hook in emission.after_commit:
                hook()

    # State and metrics.

    def _housekeeping(self) -> None:
        now = time.monotonic()
        if not self._stage.stateless:
            due = [number for number, held in self._held.items() if self._is_due(held, now)]
            if due:
                # A state is saved with the offsets that stand; one a turn, so that rows wait for one alone.
                self._commit()
                self._settle()
                number = min(due, key=lambda n: self._held[n].saved_at)
                self._save(number, self._held[number])
        if now - self._last_told > self._tuning.metrics_interval_s:
            self._last_told = now
            gc.collect(0)
            self._measure()
            self._context.tell()

    def _is_due(self, held: Held, now: float) -> bool:
        """Whether a state has changed enough, or long enough ago; rows that wait are not in it yet."""
        late = now - held.saved_at > self._tuning.snapshot_interval_s
        return not held.waiting and (held.rows >= self._tuning.snapshot_records or (late and held.rows > 0))

    def _save_all(self) -> None:
        if not self._stage.stateless:
            for number, held in self._held.items():
                if any(held.next_offsets.values()):
                    self._save(number, held)

    def _save(self, number: int, held: Held) -> None:
        unit, started = held.unit, time.perf_counter()
        snapshot = Snapshot(dict(held.next_offsets), unit.digest(), unit.snapshot(), self._topic_ids)
        self._seen.snapshot_bytes.set(self._context.store.write(number, snapshot))
        self._seen.snapshot_seconds.observe(time.perf_counter() - started)
        held.rows, held.saved_at = 0, time.monotonic()

    def _measure(self) -> None:
        consumer = self._consumer
        if consumer is None:
            return
        self._seen.held.set(sum(sum(held.unit.held().values()) for held in self._held.values()))
        places = [TopicPartition(t, n) for n in self._held for t in self._stage.inputs]
        try:
            for place in consumer.position(places) if places else ():
                low, high = consumer.get_watermark_offsets(place, cached=True)
                lag = max(0, high - max(place.offset, low, 0))
                self._seen.lag_messages.labels(place.topic, str(place.partition)).set(lag)
        except KafkaException as error:
            raise Retry(f"no positions: {error.args[0]}") from error
