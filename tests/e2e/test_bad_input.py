"""Bad input in good traffic: every good event is answered once, every bad record is named once, nothing stalls.

What each item is and what becomes of it stands in docs/bad-inputs.md.
"""

import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from services.cli.checking import exactly_once
from services.cli.journey import Journey
from services.cli.letters import read_letters
from services.cli.untrained import announce_untrained
from services.cli.variants import write_variant
from services.stack.endpoints import Endpoints
from shared.kafka.config import client_config
from shared.kafka.registry import Registry
from shared.settings import RegistrySettings
from shared.topics import EVENTS
from tests.e2e.bad_records import CASES, YEAR_MS, home_of, records_of
from tests.e2e.gate import Gate
from tests.e2e.raw_produce import PLAIN, ZSTD, bomb, produce, record, record_batch
from tests.e2e.traffic import CUSTOMERS, Answers, Traffic, longest_gap_s, now_ms

pytestmark = pytest.mark.e2e

DECLARED = Path(__file__).parent / "hostile"
COPIES = 2
CASES_A_TICK = 2
BOMBS: Mapping[int, tuple[int, int]] = {10: (1, 1), 30: (3, 500)}
"""At which tick a bomb is sent to which partition, of how many records."""
BOMB_BYTES = 300 << 20
STALL_S = 5.0
OUTAGE_S = 2.5
WARM_UP_S = 90.0


@dataclass(frozen=True, slots=True)
class Running:
    """A pipeline that answers, whose registry stands behind a gate."""

    journey: Journey
    traffic: Traffic
    answers: Answers
    gate: Gate
    broker: str
    registry: RegistrySettings


@pytest.fixture(scope="module")
def running(stack: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = write_variant(DECLARED, tmp_path_factory.mktemp("schemas"), f"hostile-{uuid.uuid4().hex[:8]}")
    address = urlsplit(stack.registry_url)
    with Gate(address.hostname or "", address.port or 0) as gate:
        through = urlunsplit(address._replace(netloc=f"127.0.0.1:{gate.port}"))
        journey = Journey(folder, environment={"MILLRACE_REGISTRY__URL": through})
        _let_any_timestamp_in(journey)
        announce_untrained(journey)
        traffic = Traffic(journey)
        _lay_a_corrupt_batch(stack, journey, traffic)
        with journey, Answers(journey).watched() as answers:
            _warm_up(traffic, answers)
            yield Running(journey, traffic, answers, gate, stack.bootstrap_servers, journey.platform.registry)


def _warm_up(traffic: Traffic, answers: Answers) -> None:
    """Single events and a burst: compiled code is compiled, where this machine has not done so before."""
    for burst in (1, 50):
        for _ in range(burst):
            traffic.tick(pause_s=0.0)
        answers.wait_for(list(traffic.sent.answered), WARM_UP_S)


def _let_any_timestamp_in(journey: Journey) -> None:
    """The broker itself refuses a record of tomorrow by default; a cluster may be set otherwise, as here."""
    admin = AdminClient(client_config(journey.platform.kafka))
    entry = ConfigEntry("message.timestamp.after.max.ms", str(100 * YEAR_MS))
    entry.incremental_operation = AlterConfigOpType.SET
    topic = EVENTS.of(journey.pipeline.name)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result()


def _lay_a_corrupt_batch(stack: Endpoints, journey: Journey, traffic: Traffic) -> None:
    """Three records between two good ones, a bit of which is turned on the disk after the broker took them."""
    topic = EVENTS.of(journey.pipeline.name)
    customer = next(c for c in CUSTOMERS if home_of(c) == 0)
    mark = uuid.uuid4().bytes
    traffic.send_good(customer)
    victims = b"".join(record(customer.encode(), mark, n) for n in range(3))
    batch = record_batch(victims, 3, now_ms(), PLAIN)
    at = produce(stack.bootstrap_servers, topic, 0, batch)
    traffic.expect((topic, 0, at), "batch.unreadable", "29 a corrupt batch")
    traffic.send_good(customer)
    log = stack.home / "kafka/data" / f"{topic}-0" / f"{0:020d}.log"
    with log.open("r+b") as file:
        file.seek(file.read().index(mark))
        file.write(bytes([mark[0] ^ 1]))


def test_every_good_event_is_answered_once_and_every_bad_record_is_named_once(running: Running) -> None:
    traffic, answers = running.traffic, running.answers
    started = time.monotonic()
    for tick, names in enumerate(_schedule()):
        traffic.tick()
        for name in names:
            purchase = traffic.purchase()
            for each in records_of(name, purchase):
                traffic.send(each, purchase, name)
        if tick in BOMBS:
            _send_bomb(running, tick)
    traffic.flush()
    answers.wait_for(list(traffic.sent.answered), 30.0)
    _check_answers(running, started)
    _check_letters(running)
    assert not any(running.journey.supervisor.restarts().values())


def _schedule() -> list[list[str]]:
    """The cases of each tick: every case so many times, in an order of chance that is the same each time."""
    names = [name for name in CASES for _ in range(COPIES)]
    random.Random(28).shuffle(names)
    return [names[at : at + CASES_A_TICK] for at in range(0, len(names), CASES_A_TICK)]


def _send_bomb(running: Running, tick: int) -> None:
    """9 kB of zstd that inflate to 300 MB, accepted by the broker."""
    partition, records = BOMBS[tick]
    topic = EVENTS.of(running.journey.pipeline.name)
    batch = record_batch(bomb(b"key", BOMB_BYTES, records), records, now_ms(), ZSTD)
    at = produce(running.broker, topic, partition, batch)
    running.traffic.expect((topic, partition, at), "batch.unreadable", f"28 a bomb of {records} records")


def _check_answers(running: Running, started: float) -> None:
    """Each answerable event once, and none waited for long since `started`."""
    sent, seen = running.traffic.sent.answered, running.answers.all
    once = exactly_once(list(sent), [answer.event_id for answer in seen])
    assert once.holds, once
    waits = {a.event_id: a.seen_at - sent[a.event_id] for a in seen if sent[a.event_id] >= started}
    slowest = max(waits, key=waits.__getitem__)
    assert waits[slowest] < STALL_S, f"{slowest} waited for {waits[slowest]:.1f} s"
    assert longest_gap_s([answer.seen_at for answer in seen if answer.seen_at >= started]) < STALL_S


def _check_letters(running: Running) -> None:
    """Every bad record in one letter, with its reason; no letter for anything else."""
    due = running.traffic.sent.letters
    letters = read_letters(running.journey.platform.kafka, running.journey.pipeline.name)
    counts = Counter(letter.place for letter in letters)
    wrong = [
        f"{running.traffic.sent.names[place]}: due {reason}, {counts[place]} letters"
        for place, reason in due.items()
        if counts[place] != 1
    ]
    wrong += [
        f"{running.traffic.sent.names.get(letter.place, 'a good record')}: {letter.reason}, {letter.message}"
        for letter in letters
        if due.get(letter.place) != letter.reason
    ]
    assert not wrong, "\n".join(wrong)


def test_a_registry_that_is_away_is_waited_for(running: Running) -> None:
    traffic, answers, journey = running.traffic, running.answers, running.journey
    newer = _register_newer(journey, running.registry)
    before = len(read_letters(journey.platform.kafka, journey.pipeline.name))
    running.gate.shut()
    try:
        held = [traffic.send_newer(newer) for _ in range(40)]
        traffic.flush()
        time.sleep(OUTAGE_S)
        assert not {answer.event_id for answer in answers.all} & set(held)
        assert len(read_letters(journey.platform.kafka, journey.pipeline.name)) == before
    finally:
        running.gate.open()
    for _ in range(5):
        traffic.tick()
    traffic.flush()
    answers.wait_for(list(traffic.sent.answered), 30.0)
    once = exactly_once(list(traffic.sent.answered), [answer.event_id for answer in answers.all])
    assert once.holds, once
    _check_letters(running)
    assert not any(journey.supervisor.restarts().values())


def test_after_a_kill_nothing_is_named_again(running: Running) -> None:
    """The state is rebuilt past the batches that cannot be read, and what was sent before stays a repeat."""
    traffic, answers, journey = running.traffic, running.answers, running.journey
    purchase = traffic.purchase()
    traffic.send(purchase.good(), purchase)
    traffic.tick()
    traffic.flush()
    answers.wait_for(list(traffic.sent.answered), 30.0)
    assert journey.supervisor.kill("ingest")
    traffic.send(replace(purchase.good(), predicted=False), purchase)
    for _ in range(5):
        traffic.tick()
    traffic.flush()
    answers.wait_for(list(traffic.sent.answered), WARM_UP_S)
    once = exactly_once(list(traffic.sent.answered), [answer.event_id for answer in answers.all])
    assert once.holds, once
    _check_letters(running)


def _register_newer(journey: Journey, registry: RegistrySettings) -> int:
    """A compatible version of the event's schema that no service has seen: its id must be asked for."""
    event = json.loads((journey.folder / "event.avsc").read_text())
    event["fields"].append(
        {"name": "coupon", "type": ["null", "string"], "default": None, "doc": "A rebate, if any."}
    )
    with Registry(registry) as direct:
        return direct.register(f"{EVENTS.of(journey.pipeline.name)}-value", event)
