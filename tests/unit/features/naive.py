"""The windows as a plain Python fold: every window is read anew from all events ever seen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.features.core.spec import LABEL, Aggregate, WindowSpec

NEVER = -(2**61)


@dataclass(frozen=True)
class Row:
    """An event, or a label when `label` is set; `values` and `codes` have None for null."""

    entity: bytes
    time: int
    ident: bytes
    values: tuple[float | None, ...] = ()
    codes: tuple[bytes | None, ...] = ()
    label: int | None = None


@dataclass
class Seen:
    """An event that has come, in the order of arrival."""

    row: Row
    arrival: int
    label: int | None = None


@dataclass
class Counts:
    late: int = 0
    too_late: int = 0
    labels_attached: int = 0
    labels_duplicate: int = 0
    labels_expired: int = 0


@dataclass
class NaiveWindows:
    specs: Sequence[WindowSpec]
    horizon: int
    unit_horizon: int
    seen: dict[bytes, list[Seen]] = field(default_factory=dict)
    held: dict[tuple[bytes, int, bytes], int] = field(default_factory=dict)
    unit_newest: int = NEVER
    arrivals: int = 0
    counts: Counts = field(default_factory=Counts)

    def floor(self, entity: bytes) -> int:
        newest = max((s.row.time for s in self.seen.get(entity, [])), default=NEVER)
        return max(newest - self.horizon, self.unit_newest - self.unit_horizon, NEVER)

    def alive(self, entity: bytes) -> list[Seen]:
        """In order of (time, arrival)."""
        floor = self.floor(entity)
        live = [s for s in self.seen.get(entity, []) if s.row.time > floor]
        return sorted(live, key=lambda s: (s.row.time, s.arrival))

    def fold(self, row: Row) -> list[float] | None:
        self.arrivals += 1
        if row.label is None:
            features: list[float] | None = self._event(row)
        else:
            features = None
            self._label(row)
        self._expire()
        return features

    def _expire(self) -> None:
        for key in [k for k in self.held if k[1] <= self.floor(k[0])]:
            del self.held[key]
            self.counts.labels_expired += 1

    def _label(self, row: Row) -> None:
        assert row.label is not None
        key = (row.entity, row.time, row.ident)
        mine = [s for s in self.alive(row.entity) if (s.row.time, s.row.ident) == (row.time, row.ident)]
        if row.time <= self.floor(row.entity):
            self.counts.labels_expired += 1
        elif mine and mine[0].label is None:
            mine[0].label = row.label
            self.counts.labels_attached += 1
        elif mine or key in self.held:
            self.counts.labels_duplicate += 1
        else:
            self.held[key] = row.label

    def _event(self, row: Row) -> list[float]:
        self.unit_newest = max(self.unit_newest, row.time)
        if row.time <= self.floor(row.entity):
            self.counts.too_late += 1
            return [spec.default for spec in self.specs]
        earlier = self.seen.setdefault(row.entity, [])
        self.counts.late += any(s.row.time > row.time for s in earlier)
        label = self.held.pop((row.entity, row.time, row.ident), None)
        self.counts.labels_attached += label is not None
        me = Seen(row, self.arrivals, label)
        earlier.append(me)
        live = self.alive(row.entity)
        return [self._feature(spec, me, live) for spec in self.specs]

    def _feature(self, spec: WindowSpec, me: Seen, live: list[Seen]) -> float:
        last = me.row.time - spec.delay_ms
        window = [s for s in live if last - spec.window_ms < s.row.time <= last]
        result = _aggregate(spec, me, window)
        return spec.default if result is None else result


def _aggregate(spec: WindowSpec, me: Seen, window: list[Seen]) -> float | None:
    if spec.aggregate is Aggregate.SINCE_LAST:
        others = [s for s in window if s is not me]
        return (me.row.time - others[-1].row.time) / 1000 if others else None
    if spec.field is None:
        return len(window) or None
    if spec.field == LABEL:
        labels = [s.label for s in window if s.label is not None]
        if spec.aggregate is Aggregate.RATE:
            return sum(label == 1 for label in labels) / len(window) if window else None
        return _of_values(spec.aggregate, labels)
    if spec.aggregate is Aggregate.DISTINCT:
        return len({s.row.codes[spec.field] for s in window} - {None}) or None
    values = [s.row.values[spec.field] for s in window]
    return _of_values(spec.aggregate, [v for v in values if v is not None])


def _of_values(aggregate: Aggregate, values: Sequence[float]) -> float | None:
    if not values:
        return None
    match aggregate:
        case Aggregate.COUNT:
            return len(values)
        case Aggregate.SUM:
            return math.fsum(values)
        case Aggregate.MEAN:
            return math.fsum(values) / len(values)
        case Aggregate.MIN:
            return min(values)
        case Aggregate.MAX:
            return max(values)
        case Aggregate.LAST:
            return values[-1]
        case Aggregate.STD:
            mean = math.fsum(values) / len(values)
            return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))
    raise AssertionError(aggregate)
