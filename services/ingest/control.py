"""Reads the replays' word beside the loop."""

from confluent_kafka import Consumer, KafkaError, TopicPartition

from shared.errors import Retry
from shared.kafka.columns import to_polled
from shared.kafka.reader import bounds, open_reader
from shared.runtime.control import Replays
from shared.settings import KafkaSettings


class ReplayReader:
    """Keeps `replays` up to date; the first call reads all that was ever said."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._kafka, self._topic = kafka, topic
        self._reader: Consumer | None = None
        self.replays = Replays()

    def refresh(self) -> None:
        """Take in what has been said since the last call, without waiting.

        Raises:
            Retry: the broker reports an error.
        """
        if self._reader is None:
            reader = open_reader(self._kafka)
            low, high = bounds(reader, self._topic, 0)
            reader.assign([TopicPartition(self._topic, 0, low)])
            self._reader = reader
            while low < high and not self._take(reader, 0.5):
                pass
        self._take(self._reader, 0.0)

    def _take(self, reader: Consumer, timeout_s: float) -> bool:
        """Take what is there; True when that was the end of the topic."""
        good, ended = [], False
        for message in reader.consume(1_000, timeout=timeout_s):
            error = message.error()
            if error is None:
                good.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ended = True
            elif not error.retriable() and error.code() not in (
                KafkaError._TRANSPORT,
                KafkaError._ALL_BROKERS_DOWN,
            ):
                raise Retry(f"{self._topic}: {error}")
        for polled in to_polled(good):
            self.replays.step(polled)
        return ended
