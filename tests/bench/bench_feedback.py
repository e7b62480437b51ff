"""How many rows a second the join and the score take, without a broker; run it with `pytest -s`."""

import time

import numpy as np
import pytest

from schemas import platform_schema
from services.feedback.score_unit import ScoreUnit
from services.feedback.unit import JoinTables, JoinUnit
from shared.codec.batch import Column, Strings
from shared.contracts.generated import labeled_schema
from shared.contracts.pipeline import Pipeline
from shared.runtime.polled import Polled
from shared.runtime.tables import Table, empty_rows
from tests.unit.feedback.makers import T0, shop, tables

pytestmark = pytest.mark.bench
EVENTS, POLL, DELAY = 100_000, 5_000, 400


def _polled(topic: str, values: Strings) -> list[Polled]:
    parts = []
    for first in range(0, len(values), POLL):
        part = values.take(np.arange(first, min(first + POLL, len(values)))).compact()
        none, offsets = np.zeros(len(part), np.bool_), np.arange(first, first + len(part))
        keys = Strings.repeated(b"c", len(part))
        parts.append(Polled(topic, 0, keys, none, part, none, offsets, offsets))
    return parts


def _accepted(table: Table) -> Strings:
    """Events a millisecond apart, each event's label DELAY milliseconds behind it."""
    count = np.arange(EVENTS)
    ids = Strings.of([b"event-%09d" % n for n in count])
    is_event = np.tile(np.array([True, False]), EVENTS)
    of = np.repeat(count, 2)
    of[1::2] = np.maximum(count - DELAY, 0)
    there = Strings.choose(np.ones(2 * EVENTS, np.bool_), ids.take(of), ids.take(of))
    text = Strings.repeated(b"c", 2 * EVENTS)
    columns: dict[str, Column | np.ndarray] = {
        "order_time": T0 + np.repeat(count, 2),
        "source_offset": of,
        "event": is_event,
        "label": ~is_event,
        "label.returned": Column(of % 2, ~is_event),
        "label.fixed": Column(np.zeros(2 * EVENTS, np.bool_), ~is_event),
        "label.by": Column(Strings.repeated(b"", 2 * EVENTS), ~is_event),
        "event.amount": Column(np.ones(2 * EVENTS), is_event),
    }
    for kind, mask in (("event", is_event), ("label", ~is_event)):
        columns |= {
            f"{kind}.order_id": Column(there, mask),
            f"{kind}.order_time": Column(T0 + of, mask),
            f"{kind}.customer_id": Column(text, mask),
            f"{kind}.shop_id": Column(text, mask),
        }
    return table.write(empty_rows(table.program, 2 * EVENTS).having(**columns))


def _beside(table: Table, answers: bool) -> Strings:
    count = np.arange(EVENTS)
    text = Strings.repeated(b"champion", EVENTS)
    rows = empty_rows(table.program, EVENTS).having(
        event_id=Strings.of([b"event-%09d" % n for n in count]),
        key=text,
        event_time=T0 + count,
        order_time=T0 + count,
        source_offset=count,
        feature_hash=count,
    )
    if answers:
        score = np.random.default_rng(0).random(EVENTS)
        rows = rows.having(
            input_offset=count, score=score, label=text, model_name=text, model_digest=text, role=text,
            probabilities=Strings.repeated(b"\0", EVENTS), predicted_class=(score > 0.5).astype(np.int64),
        )  # fmt: skip
    return table.write(rows)


def _join(pipeline: Pipeline, made: JoinTables) -> list[Strings]:
    accepted = _polled(made.accepted.topic, _accepted(made.accepted))
    others = list(
        zip(
            _polled(made.features.topic, _beside(made.features, False)),
            _polled(made.predictions.topic, _beside(made.predictions, True)),
            strict=True,
        )
    )
    outs: list[Strings] = []
    for warm in (True, False):
        unit, outs = JoinUnit(pipeline, 0, made), []
        started = time.perf_counter()
        for at, part in enumerate(accepted[: 4 if warm else None]):
            beside = others[at // 2] if at % 2 == 0 else ()
            emission = unit.step([part, *beside], 0)
            outs += [out.values for out in (*emission.outs, *unit.progress())]
        seconds = time.perf_counter() - started
    print(f"\njoin: {2 * EVENTS / seconds:,.0f} accepted rows/s, {len(outs)} outputs")
    return outs


def test_rows_a_second() -> None:
    pipeline = shop(more="[[policy.slice]]\nname = 'dear'\nexpression = 'SPENT > 5'\n")
    made = tables(pipeline)
    outs = _join(pipeline, made)
    labeled = Table.of("shop.labeled.v1", 7, labeled_schema(pipeline))
    scores = Table.of("shop.scores.v1", 8, platform_schema("score"))
    joined = _polled(made.joined.topic, Strings.concat(outs))
    idle = empty_rows(made.joined.program, 1).having(
        unit=np.ones(1, np.int64), progress=np.ones(1, np.bool_),
        **{"progress.idle": Column(np.ones(1, np.bool_), np.ones(1, np.bool_))},
    )  # fmt: skip
    written = 0
    for warm in (True, False):
        unit, written = ScoreUnit(pipeline, made.joined, labeled, scores), 0
        started = time.perf_counter()
        for part in [*_polled(made.joined.topic, made.joined.write(idle)), *joined[: 2 if warm else None]]:
            written += sum(len(out.values) for out in unit.step([part], 0).outs[:1])
        seconds = time.perf_counter() - started
    print(f"score: {written / seconds:,.0f} outcomes/s")
    assert written >= EVENTS - DELAY - 1
