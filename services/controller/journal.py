"""What the log holds of decisions: the controller's own records, and announcements that others made."""

from confluent_kafka import Consumer

from services.controller.core.state import Entry, State, rebuild
from services.controller.reading import entry_of, rows_of
from shared.codec.frame import split_frames
from shared.errors import Fatal
from shared.kafka.reader import bounds, open_reader, read_ranges, read_topic
from shared.models.announcement import CHAMPION, Announcement, announcements
from shared.models.safety import ModelRefused
from shared.models.signing import TrustedKeys, verify
from shared.runtime.tables import Table
from shared.settings import KafkaSettings


def read_entries(kafka: KafkaSettings, audit: Table, model: str) -> list[Entry]:
    """Every decision on audit.v1, in order."""
    found = []
    for polled in read_topic(kafka, audit.topic):
        found += [entry for read in rows_of(audit, polled) if (entry := entry_of(read, model)) is not None]
    return found


def read_announcements(
    kafka: KafkaSettings, models: Table, model: str, trusted: TrustedKeys
) -> list[Announcement]:
    """Every announcement of the model on models.v1 that workers obey, in order."""
    found: list[Announcement] = []
    for polled in read_topic(kafka, models.topic):
        ids, payload, status = split_frames(polled.values)
        decoded = models.program.decode(payload)
        good = (status == 0) & (ids == models.schema_id) & (decoded.status == 0) & ~polled.value_null
        said = announcements(decoded.batch.take(good))
        times = polled.timestamps[good].tolist()
        found += [
            each
            for each, timestamp in zip(said, times, strict=True)
            if each.name == model and _obeyed(each, trusted, timestamp)
        ]
    return found


def _obeyed(said: Announcement, trusted: TrustedKeys, timestamp: int) -> bool:
    try:
        said.check()
        verify(said, trusted, timestamp)
    except ModelRefused:
        return False
    return said.state == CHAMPION


def read_state(kafka: KafkaSettings, audit: Table, models: Table, model: str, trusted: TrustedKeys) -> State:
    """The state that the log says.

    Raises:
        Fatal: the controller's records cannot be read or do not follow on each other: some are gone.
    """
    announced = read_announcements(kafka, models, model, trusted)
    try:
        return rebuild(read_entries(kafka, audit, model), announced)
    except ValueError as error:
        raise Fatal(
            f"the decisions on {audit.topic} do not make a whole ({error}); restore the topic"
        ) from error


class Ends:
    """Whether anything lies behind some positions, asked of the broker beside the loop."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._reader: Consumer | None = None

    def reached(self, positions: dict[str, int]) -> bool:
        """Whether no committed record stands at or behind these positions (by topic, partition 0)."""
        if self._reader is None:
            # Behind a position stands a mark at least: what comes then is the broker's word that nothing follows.
            self._reader = open_reader(self._kafka, **{"fetch.wait.max.ms": 10})
        reader, ranges = self._reader, {}
        for topic, position in positions.items():
            low, high = bounds(reader, topic, 0)
            if max(low, position) < high:
                ranges[topic, 0] = (max(low, position), high)
        # Only the marks that transactions leave may stand there.
        found = any(len(polled) for polled in read_ranges(reader, ranges))
        reader.unassign()
        return not found
