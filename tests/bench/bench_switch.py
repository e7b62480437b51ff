"""Models switched under load: 50 announcements while events flow at a steady rate, and what must hold meanwhile.

Run: `python -m tests.bench.bench_switch --rate 10000 --announcements 50 --seconds 60` with a platform that runs.
Prints one JSON object and exits with 1 where a promise was broken. The ratio of latencies is told, not judged: to
the mean of two phases without announcements, one before and one after.
The versions are ten artefacts in turn, which this host has tried before: a trial is a process of its own that
takes seconds of a core. With `--cold` each is tried when it is announced, beside the load.
"""

import argparse
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from schemas import platform_schema
from services.cli import benching
from services.cli.journey import Journey, read_rows
from services.cli.latency import LatencyProbe, percentiles
from services.cli.letters import read_letters
from services.cli.live import send_live
from services.cli.untrained import untrained_model
from services.inference.settings import InferenceSettings
from services.retrainer.core.announce import announce, next_numbers
from services.retrainer.releases import Announced, ModelsTopic
from shared.codec.batch import Batch, Ints, Strings
from shared.kafka.reader import read_topic
from shared.models.announcement import CANARY, CHAMPION, SHADOW, Announcement
from shared.models.manifest import Artefact
from shared.models.probe import Limits, probe
from shared.models.signing import KeyFolder, sign
from shared.runtime.tables import Table
from shared.settings import home
from shared.store.artefacts import ArtefactStore
from shared.topics import AUDIT, PREDICTIONS, SHADOWS

CALM_S = 30.0
ARTEFACTS = 10
COLUMNS = ("role", "model_digest", "registry_offset", "input_partition", "input_offset")


@dataclass(slots=True)
class Switches:
    """Announces `count` versions, one every `pause_s`; by turns as shadow, canary and champion with `roles`."""

    journey: Journey
    artefacts: Sequence[Artefact]
    pause_s: float
    roles: bool
    said: list[int] = field(default_factory=list)
    before: list[Announcement] = field(default_factory=list)

    def run(self) -> None:
        """Announce; at most 0.1 s late, so that a slow announcement costs those behind it nothing."""
        topic = ModelsTopic(self.journey.platform.kafka, self.journey.pipeline, self.journey.schema_ids)
        self.before = [each.announcement for each in topic.read()]
        began = time.monotonic()
        for number, artefact in enumerate(self.artefacts):
            time.sleep(max(0.0, began + number * self.pause_s - time.monotonic()))
            said = self._next(number, artefact)
            self.before.append(said)
            self.said.append(topic.write(said))

    def _next(self, number: int, artefact: Artefact) -> Announcement:
        name, key = self.journey.pipeline.model.name, KeyFolder(home() / "keys").signer()
        numbers = next_numbers(name, self.before)
        said = announce(artefact, name, numbers, key, time.time_ns() // 1_000_000)
        state = (SHADOW, CANARY, CHAMPION)[number % 3] if self.roles else CHAMPION
        if state == CHAMPION:
            return said
        return sign(replace(said, state=state, share=0.2 if state == CANARY else 1.0), key)


def phase(journey: Journey, table: Table, events: Batch, rate: float) -> dict[str, float]:
    """Send at `rate`; milliseconds to the predictions, and how many there were."""
    with LatencyProbe(journey.platform.kafka, table) as probe:
        sent = send_live(journey, events, rate)
        deadline = time.monotonic() + CALM_S
        while probe.count < sent.events and time.monotonic() < deadline:
            time.sleep(0.05)
    return {**percentiles(probe.milliseconds(sent.sent_ns, sent.first_offset)), "answered": probe.count}


def verdicts(journey: Journey, offsets: Sequence[int]) -> dict[str, int]:
    """How many of the announcements at `offsets` had which verdict; one that came too soon is superseded."""
    topic = AUDIT.of(journey.pipeline.name)
    table = Table.of(topic, journey.schema_ids[topic], platform_schema("audit"))
    rows = read_rows(journey.platform, table, ("kind", "registry_offset"))
    kinds = zip(rows["registry_offset"].array.tolist(), rows["kind"].strings.to_list(), strict=True)
    found = {offset: kind.decode().removeprefix("model.") for offset, kind in kinds}
    return dict(Counter(found[offset] for offset in offsets if offset in found))


def broken_promises(journey: Journey) -> list[str]:
    """What predictions and shadows say against the announcements: nothing, or the first of each kind."""
    pipeline = journey.pipeline
    topic = ModelsTopic(journey.platform.kafka, pipeline, journey.schema_ids)
    known = {each.offset: each for each in topic.read()}
    wrong: list[str] = []
    for target in (PREDICTIONS.of(pipeline.name), SHADOWS.of(pipeline.name)):
        table = Table.of(target, journey.schema_ids[target], platform_schema("prediction"))
        for polled in read_topic(journey.platform.kafka, target):
            rows = table.read(polled)
            wrong += _unannounced(rows, polled.timestamps, known)
        if target.endswith(PREDICTIONS.name):
            rows = read_rows(journey.platform, table, COLUMNS)
            wrong += _backwards(rows)
    return wrong[:5]


def _unannounced(rows: Batch, written_ms: Ints, known: dict[int, Announced]) -> list[str]:
    """Rows whose digest is not what was announced at their offset, with their role, before they were written."""
    columns = (
        rows["role"].strings.to_list(),
        rows["model_digest"].strings.to_list(),
        rows["registry_offset"].array.tolist(),
        written_ms.tolist(),
    )
    for role, digest, offset, written in set(zip(*columns, strict=True)):
        said = known.get(offset)
        if said is None or said.announcement.digest != digest.decode() or said.timestamp > written:
            return [f"digest {digest[:12]!r} of offset {offset} was not announced before"]
        if said.announcement.state != role.decode():
            return [f"{role!r} was announced as {said.announcement.state}"]
    return []


def _backwards(rows: Batch) -> list[str]:
    """In the order of a partition the announcements of one role never go back: no batch has two of them."""
    roles = rows["role"].strings.to_list()
    for partition in np.unique(rows["input_partition"].array).tolist():
        for role in sorted(set(roles)):
            mine = (rows["input_partition"].array == partition) & np.array([each == role for each in roles])
            order = np.argsort(rows["input_offset"].array[mine], kind="stable")
            if (np.diff(rows["registry_offset"].array[mine][order]) < 0).any():
                return [f"{role.decode()} goes back on partition {partition}"]
    return []


def stored(journey: Journey, cold: bool) -> list[Artefact]:
    """Artefacts that lie in the store; tried on this host, but `cold`."""
    settings = InferenceSettings()
    limits = Limits(memory_bytes=settings.model_memory_bytes, row_seconds=settings.model_row_seconds)
    made = []
    for seed in range(1, ARTEFACTS + 1):
        artefact = untrained_model(journey, seed=time.time_ns() % 2**31 if cold else seed)
        ArtefactStore(journey.platform.artefacts_url).put(artefact)
        if not cold:
            probe(artefact, journey.pipeline.feature_fingerprint, limits, home() / "proofs")
        made.append(artefact)
    return made


def measure(rate: float, seconds: float, announcements: int, roles: bool, cold: bool) -> dict[str, Any]:
    """Steady, the same with announcements, and steady again; the figures and what was broken."""
    prepared = benching.prepare(10_000, benching.declare(one_entity=True, partitions=2), labels=False)
    journey, events = prepared.journey, prepared.script.events
    made = stored(journey, cold)
    artefacts = [made[number % ARTEFACTS] for number in range(announcements)]
    topic = journey.topic(PREDICTIONS.name)
    table = Table.of(topic, journey.schema_ids[topic], platform_schema("prediction"))

    def some(name: str, length_s: float) -> Batch:
        wanted = int(rate * length_s)
        ids = Strings.of([f"{name}-{i}".encode() for i in range(wanted)])
        return events.take(np.arange(wanted) % events.rows).having(**{journey.pipeline.event.id: ids})

    switches = Switches(journey, artefacts, seconds / announcements, roles)
    with journey:
        benching.wait_ready(journey)
        phase(journey, table, some("warm", benching.WARM_S), rate)
        steady = phase(journey, table, some("steady", seconds), rate)
        thread = threading.Thread(target=switches.run)
        thread.start()
        switching = phase(journey, table, some("switching", seconds), rate)
        thread.join()
        deadline = time.monotonic() + CALM_S * 2
        while sum((told := verdicts(journey, switches.said)).values()) < announcements:
            if time.monotonic() > deadline:
                break
            time.sleep(0.5)
        after = phase(journey, table, some("after", seconds), rate)
        restarts = sum(journey.supervisor.restarts().values())
    wrong = broken_promises(journey)
    letters = len(read_letters(journey.platform.kafka, journey.pipeline.name))
    missing = 3 * int(rate * seconds) - int(sum(each["answered"] for each in (steady, switching, after)))
    if letters or restarts or missing:
        wrong.append(f"{letters} dead letters, {restarts} restarts, {missing} events without an answer")
    if told.get("accepted", 0) + told.get("superseded", 0) < announcements:
        wrong.append(f"of {announcements} announcements: {told}")
    return {
        "machine": benching.machine(),
        "rate": rate,
        "announcements": announcements,
        "verdicts": told,
        "steady": steady,
        "switching": switching,
        "after": after,
        "p99_ratio": round(2 * switching["p99_ms"] / (steady["p99_ms"] + after["p99_ms"]), 2),
        "broken": wrong,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="bench_switch")
    parser.add_argument("--rate", type=float, default=10_000.0, help="events a second")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each of the three phases")
    parser.add_argument("--announcements", type=int, default=50)
    parser.add_argument("--roles", action="store_true", help="announce shadows and canaries too")
    parser.add_argument("--cold", action="store_true", help="of models that this host has not tried")
    given = parser.parse_args()
    found = measure(given.rate, given.seconds, given.announcements, given.roles, given.cold)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    sys.exit(1 if found["broken"] else 0)


if __name__ == "__main__":
    main()
