"""What a run asks of the rest of the loop: the champion on models.v1, and drifts known up to a sequence."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from pydantic import JsonValue

from services.retrainer.core.reign import Reign
from services.retrainer.releases import ModelsTopic
from shared.control.records import Record, Records
from shared.errors import Retry
from shared.kafka.config import client_config
from shared.kafka.reader import bounds, open_reader, read_ranges, read_topic
from shared.runtime.control import Replays
from shared.settings import KafkaSettings

TURN_S = 0.1
LAST_WORDS = 500
"""Of replays.v1: a replay in lockstep says its word once a second at least, another one 40 times at most."""


@dataclass(frozen=True, slots=True)
class DriftGroup:
    """The drift service's place on labeled.v1."""

    kafka: KafkaSettings
    group: str
    topic: str

    def committed(self) -> int:
        """The offset behind the last row that it is done with; -1 where it never ran."""
        admin = AdminClient(client_config(self.kafka))
        asked = ConsumerGroupTopicPartitions(self.group, [TopicPartition(self.topic, 0)])
        try:
            answer = admin.list_consumer_group_offsets([asked])[self.group].result(timeout=30.0)
        except KafkaException as error:
            raise Retry(f"the broker did not say where {self.group} stands: {error.args[0]}") from error
        offset = int(answer.topic_partitions[0].offset)
        return offset if offset >= 0 else -1


@dataclass(frozen=True, slots=True)
class KafkaOutlook:
    """models.v1 and drift.v1 of one pipeline."""

    kafka: KafkaSettings
    reign: Callable[[], Reign]
    """Of this pipeline's model, before the first announcement."""
    models: ModelsTopic
    alarms: Records
    replays: str
    """The topic replays.v1."""
    drift: DriftGroup | None
    offset_of: Callable[[int], int]
    """The offset of labeled.v1 at which a sequence is known to stand, -1 where it is not known."""
    wait_s: float
    verdict_s: float
    leaving: Callable[[], bool]

    def champion(self, after: str) -> dict[str, JsonValue]:
        """The champion that workers obey, once what was proposed last is on models.v1.

        Within a step of a replay in lockstep nothing is waited for: the controller decides when this run is over.
        """
        deadline = time.monotonic() + (0.0 if after and self.within_step() else self.verdict_s)
        while True:
            reign, digests = self._announced()
            if not after or after in digests or time.monotonic() >= deadline or self.leaving():
                break
            time.sleep(TURN_S)
        said = reign.champion
        if said is None:
            return {}
        return {
            "digest": said.digest,
            "version": said.version,
            "sequence": said.sequence,
            "offset": reign.offset,
        }

    def _announced(self) -> tuple[Reign, set[str]]:
        """Who is champion now, and the digests of all that was ever announced and obeyed."""
        reign = self.reign()
        obeyed = {
            each.announcement.digest
            for each in self.models.read()
            if reign.step(each.announcement, each.offset, each.timestamp)
        }
        return reign, obeyed

    def within_step(self) -> bool:
        """Whether a replay in lockstep is within a step now."""
        reader, replays = open_reader(self.kafka), Replays()
        try:
            first, end = bounds(reader, self.replays, 0)
            for polled in read_ranges(reader, {(self.replays, 0): (max(first, end - LAST_WORDS), end)}):
                replays.step(polled)
        finally:
            reader.close()
        return replays.stepping(time.time_ns() // 1_000_000)

    def since(self, sequence: int) -> int:
        """The newest alarm that triggers, raised up to `sequence`, once the drift service has come that far."""
        found = self.raised(sequence)
        return max(found, key=lambda record: int(record["sequence"]))["since_sequence"] if found else -1

    def raised(self, sequence: int) -> list[Record]:
        """The alarms that trigger, raised up to `sequence`, in their order."""
        self._wait_for_drift(sequence)
        return [record for record in self._alarms() if record["triggers"] and record["sequence"] <= sequence]

    def _alarms(self) -> list[Record]:
        return [
            record
            for polled in read_topic(self.kafka, self.alarms.topic)
            for record in self.alarms.read(polled)
        ]

    def _wait_for_drift(self, sequence: int) -> None:
        offset = self.offset_of(sequence)
        if self.drift is None or offset < 0:
            return
        deadline = time.monotonic() + self.wait_s
        while 0 <= self.drift.committed() <= offset and time.monotonic() < deadline and not self.leaving():
            time.sleep(TURN_S)
