"""The monitor between its topics: rows in, alarms out, each told once, and a state that knows where it stands.

What is folded twice would count twice, and what is passed over would be missing. So the state knows the offsets
it stands at: a row before them has been folded. Where the group went on without this state (another slot worked,
or the state is that of the last snapshot), what lies between is read again from the log and folded first. The
ledger's sequences say whether anything does. A unit's profiles count without gaps too, but its next one tells
nothing of the other units': profiles are few, so the log is looked at wherever offsets are missing, be it a
transaction's marker alone. Alarms that stand on drift.v1 already are not told again.

The two topics are read at their own speeds. So an alarm of a profile is told when the ledger has passed the
profile's time, with the newest outcome up to it; meanwhile the profile is not acknowledged, and no state is saved.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from services.drift.core.records import Alarm, LabeledRows, ProfileRow
from services.drift.metrics import DriftMetrics
from services.drift.rows import labeled_rows, profile_row
from services.drift.settings import DriftSettings
from shared.codec.batch import Batch
from shared.control.loop import Control
from shared.control.records import Record, Records
from shared.errors import Fatal
from shared.kafka.admin import topic_ids
from shared.kafka.reader import bounds, open_reader, read_ranges, read_topic
from shared.runtime.polled import Polled
from shared.runtime.snapshots import Snapshot, SnapshotStore
from shared.runtime.tables import Table
from shared.runtime.unit import Arrays
from shared.settings import KafkaSettings

UNIT = 0
ANYWHERE = 1 << 62
TURN_S = 0.02
_PROFILES = "profiles|"


class Core(Protocol):
    """The monitor as it is driven here."""

    def labeled(self, rows: LabeledRows) -> list[Alarm]:
        """Fold outcomes; how they are cut into calls changes nothing."""
        ...

    def profile(self, row: ProfileRow) -> list[Alarm]:
        """Fold one profile."""
        ...

    @property
    def promised(self) -> Mapping[int, float]:
        """By unit, the accuracy that its newest answers promise."""
        ...

    def passed(self, order_time: int) -> bool:
        """Whether an outcome beyond that time has been folded."""
        ...

    def dated(self, alarm: Alarm) -> Alarm:
        """A profile's alarm at the newest outcome up to its time."""
        ...

    def snapshot(self) -> bytes:
        """The state."""
        ...

    def restore(self, state: bytes) -> None:
        """Take up what `snapshot` gave."""
        ...


@dataclass(frozen=True, slots=True)
class Topics:
    """What is read and written: labeled.v1, profiles.v1, drift.v1."""

    labeled: Table
    profiles: Records
    drift: Records


@dataclass(slots=True)
class Place:
    """Where a state stands: the next offset of each topic, the next sequence, and by kind and unit the number of
    the next profile and how many rows the last one had.
    """

    next_offsets: dict[str, int] = field(default_factory=dict)
    sequence: int = 0
    profiles: dict[str, dict[int, tuple[int, int]]] = field(default_factory=dict)


class Folding:
    """The core and its place in the log: folds what is new, says what was passed over.

    `held` are alarms of profiles whose time the ledger has not passed yet: which outcomes were known then is not
    known now.
    """

    def __init__(self, core: Core, topics: Topics, features: Sequence[str], classes: int) -> None:
        self.core, self._topics = core, topics
        self._features, self._classes = features, classes
        self.place = Place()
        self.held: list[Alarm] = []

    def new(self, polled: Polled) -> Polled:
        """The rows that have not been folded."""
        return _behind(polled, self.place.next_offsets.get(polled.topic, 0))

    def passed_over(self, polled: Polled) -> bool:
        """Whether rows may lie between the state's place and the first of these."""
        if polled.topic == self._topics.labeled.topic:
            first = self._topics.labeled.read(_first(polled))
            return bool(first["sequence"].array[0] > self.place.sequence)
        return bool(polled.offsets[0] > self.place.next_offsets.get(polled.topic, 0))

    def fold(self, polled: Polled) -> list[Alarm]:
        """Fold new rows of one topic; the alarms that may be told then, in the order of their sequences.

        Raises:
            Fatal: the ledger or a unit's profiles have a gap.
        """
        if polled.topic == self._topics.labeled.topic:
            alarms = self._outcomes(self._topics.labeled.read(polled))
        else:
            alarms = []
            self.held += [
                each for record in self._topics.profiles.read(polled) for each in self._profile(record)
            ]
        self.place.next_offsets[polled.topic] = int(polled.offsets[-1]) + 1
        due = self._release([self.core.passed(alarm.order_time) for alarm in self.held])
        return sorted(due + alarms, key=lambda alarm: alarm.sequence)

    def release(self) -> list[Alarm]:
        """All that are held, with the newest outcome folded."""
        return self._release([True] * len(self.held))

    def _release(self, due: Sequence[bool]) -> list[Alarm]:
        held, self.held = self.held, [each for each, now in zip(self.held, due, strict=True) if not now]
        return [self.core.dated(each) for each, now in zip(held, due, strict=True) if now]

    def _outcomes(self, batch: Batch) -> list[Alarm]:
        place = self.place
        wanted = np.arange(place.sequence, place.sequence + batch.rows)
        wrong = np.flatnonzero(batch["sequence"].array != wanted)
        if wrong.size:
            found = int(batch["sequence"].array[wrong[0]])
            raise Fatal(
                f"{self._topics.labeled.topic} goes on with sequence {found} "
                f"where {int(wanted[wrong[0]])} must stand: records are gone, or somebody else writes there"
            )
        place.sequence += batch.rows
        return self.core.labeled(labeled_rows(batch, self._features, self._classes))

    def _profile(self, record: Record) -> list[Alarm]:
        unit, number, kind = record["unit"], record["number"], record["of"]
        told = self.place.profiles.setdefault(kind, {})
        wanted, rows = told.get(unit, (number, record["rows"]))
        # Whoever declares another size, or the loop again, begins another count; nothing else can renumber.
        counted_anew = number == 0 or rows != record["rows"]
        if number != wanted and not counted_anew:
            raise Fatal(
                f"{self._topics.profiles.topic} goes on with profile {number} of unit {unit}'s {kind} "
                f"where {wanted} must stand: records are gone, or somebody else writes there"
            )
        told[unit] = number + 1, record["rows"]
        return self.core.profile(profile_row(record))

    def snapshot(self, ids: dict[str, str]) -> Snapshot:
        """State and place; `ids` are those of the topics read."""
        state = self.core.snapshot()
        arrays: Arrays = {
            "state": np.frombuffer(state, np.uint8),
            "sequence": np.array([self.place.sequence], np.int64),
            **{
                f"{_PROFILES}{kind}": np.array(
                    [(unit, *place) for unit, place in sorted(told.items())], np.int64
                ).reshape(-1, 3)
                for kind, told in self.place.profiles.items()
            },
        }
        return Snapshot(dict(self.place.next_offsets), hashlib.sha256(state).hexdigest(), arrays, ids)

    def restore(self, snapshot: Snapshot) -> None:
        """Take up a snapshot."""
        arrays = snapshot.arrays
        self.core.restore(arrays["state"].tobytes())
        profiles = {
            name.removeprefix(_PROFILES): {
                int(unit): (int(number), int(rows)) for unit, number, rows in array
            }
            for name, array in arrays.items()
            if name.startswith(_PROFILES)
        }
        self.place = Place(dict(snapshot.next_offsets), int(arrays["sequence"][0]), profiles)


class Told:
    """The alarms that stand on drift.v1, by id; read on from where it was last read."""

    def __init__(self, kafka: KafkaSettings, records: Records) -> None:
        self._kafka, self._records = kafka, records
        self._next = 0
        self.ids: set[str] = set()

    def refresh(self) -> None:
        """Read what has come."""
        for polled in read_topic(self._kafka, self._records.topic, {0: self._next}):
            self.ids |= {record["id"] for record in self._records.read(polled)}
            self._next = int(polled.offsets[-1]) + 1


class Service:
    """Handlers for both topics; one batch at a time, so that a snapshot never holds an alarm that is not told."""

    def __init__(
        self, control: Control, make_core: Callable[[], Core], topics: Topics, settings: DriftSettings
    ) -> None:
        start = control.start
        self._control, self._topics, self._settings = control, topics, settings
        self._kafka = start.platform.kafka
        label = start.pipeline.label
        classes = 0 if label is None else len(label.classes)
        self._fold = Folding(make_core(), topics, start.pipeline.feature_names, classes)
        self._told = Told(self._kafka, topics.drift)
        self._store = SnapshotStore(start.platform.snapshots_url, start.pipeline.name, "drift")
        self._metrics = DriftMetrics.on(start.metrics)
        self._ids: dict[str, str] = {}
        self._lock = asyncio.Lock()
        self._begun, self._whole = False, True
        self._unsaved, self._saved_at = 0, time.monotonic()

    async def take(self, polled: Polled) -> None:
        """Fold a batch, tell its alarms, and save the state when it is time."""
        async with self._lock:
            if not self._begun:
                await asyncio.to_thread(self._begin)
            fresh = self._fold.new(polled)
            if not len(fresh):
                return
            if self._fold.passed_over(fresh):
                await self._catch_up(fresh)
            await self._step(fresh)
            if self._due():
                await asyncio.to_thread(self.save)
        if polled.topic == self._topics.profiles.topic:
            await self._wait_for_ledger()

    async def _wait_for_ledger(self) -> None:
        """Return once every profile's alarm is told: the ledger has passed its time, or has long stood still."""
        at, since = self._fold.place.sequence, time.monotonic()
        while self._fold.held:
            if self._control.leaving:
                raise asyncio.CancelledError
            await asyncio.sleep(TURN_S)
            async with self._lock:
                if self._fold.place.sequence != at:
                    at, since = self._fold.place.sequence, time.monotonic()
                elif time.monotonic() - since >= self._settings.ledger_wait_s:
                    await self._tell(self._fold.release())

    def _begin(self) -> None:
        """Stand where the newest snapshot stands."""
        names = [self._topics.labeled.topic, self._topics.profiles.topic]
        self._ids = topic_ids(self._kafka, names)
        snapshot = self._store.newest(UNIT, dict.fromkeys(names, ANYWHERE), self._ids)
        if snapshot is not None:
            try:
                self._fold.restore(snapshot)
            except ValueError as error:
                raise Fatal(
                    f"the snapshot of drift cannot be taken up: {error}; remove the pipeline's `drift` folder "
                    "among the snapshots, and the ledger is folded from its beginning"
                ) from error
        self._told.refresh()
        self._begun = True

    async def _catch_up(self, polled: Polled) -> None:
        """Fold what lies before these rows; its alarms may have been told by whoever went on."""
        between, known = self._between(polled), False
        while (part := await asyncio.to_thread(next, between, None)) is not None:
            if not known:
                await asyncio.to_thread(self._told.refresh)
                known = True
            await self._step(part)

    def _between(self, polled: Polled) -> Iterator[Polled]:
        """What lies in the log before these rows and has not been folded."""
        start, end = self._fold.place.next_offsets.get(polled.topic, 0), int(polled.offsets[0])
        reader = open_reader(self._kafka)
        try:
            low, _ = bounds(reader, polled.topic, polled.partition)
            yield from read_ranges(reader, {(polled.topic, polled.partition): (max(start, low), end)})
        finally:
            reader.close()

    async def _step(self, polled: Polled) -> None:
        self._whole = False
        alarms = await asyncio.to_thread(self._fold.fold, polled)
        self._fold.held = [alarm for alarm in self._fold.held if alarm.id not in self._told.ids]
        await self._tell(alarms)
        self._metrics.folded.labels(polled.topic).inc(len(polled))
        self._metrics.sequence.set(self._fold.place.sequence - 1)
        for unit, accuracy in self._fold.core.promised.items():
            self._metrics.promised_accuracy.labels(str(unit)).set(accuracy)
        self._unsaved += len(polled)

    async def _tell(self, alarms: Sequence[Alarm]) -> None:
        """Write those that do not stand on drift.v1; then the state may be saved."""
        self._whole = False
        new = [alarm for alarm in alarms if alarm.id not in self._told.ids]
        if new:
            await self._control.publish([self._topics.drift.out([(a.id, a.record()) for a in new])])
            self._told.ids |= {alarm.id for alarm in new}
        for alarm in new:
            self._metrics.alarms.labels(alarm.family, alarm.detector).inc()
        self._whole = not self._fold.held

    def _due(self) -> bool:
        late = time.monotonic() - self._saved_at > self._settings.snapshot_interval_s
        return self._unsaved >= self._settings.snapshot_rows or late

    def save(self) -> None:
        """Save the state, unless nothing has changed or an alarm of it has not been told."""
        if not self._whole or not self._unsaved:
            return
        self._metrics.snapshot_bytes.set(self._store.write(UNIT, self._fold.snapshot(self._ids)))
        self._unsaved, self._saved_at = 0, time.monotonic()


def _behind(polled: Polled, start: int) -> Polled:
    """The rows from offset `start` on."""
    return _rows(polled, slice(int(np.searchsorted(polled.offsets, start)), None))


def _first(polled: Polled) -> Polled:
    return _rows(polled, slice(0, 1))


def _rows(polled: Polled, rows: slice) -> Polled:
    at = np.arange(len(polled))[rows]
    return Polled(
        polled.topic,
        polled.partition,
        polled.keys.take(at),
        polled.key_null[rows],
        polled.values.take(at),
        polled.value_null[rows],
        polled.offsets[rows],
        polled.timestamps[rows],
    )
