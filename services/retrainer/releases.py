"""models.v1 read and written: what has been announced, and one announcement more."""

from dataclasses import dataclass

import numpy as np
from confluent_kafka import KafkaError, Message, Producer

from schemas import platform_schema
from shared.codec.frame import frame_prefix, split_frames
from shared.codec.program import Program, compile_program
from shared.contracts.pipeline import Pipeline
from shared.errors import Retry
from shared.kafka.reader import read_topic
from shared.kafka.transactions import producer_config
from shared.models.announcement import Announcement, announcement_batch, announcements
from shared.settings import KafkaSettings
from shared.topics import MODELS

DELIVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class Announced:
    """An announcement with its place on the topic and its Kafka timestamp in milliseconds."""

    offset: int
    timestamp: int
    announcement: Announcement


class ModelsTopic:
    """One pipeline's models.v1."""

    def __init__(self, kafka: KafkaSettings, pipeline: Pipeline, schema_ids: dict[str, int]) -> None:
        self.name = MODELS.of(pipeline.name)
        self._kafka = kafka
        self._schema_id = schema_ids[self.name]
        self._program: Program = compile_program(platform_schema("model"))
        self._producer: Producer | None = None

    def read(self) -> list[Announced]:
        """Every announcement that can be read, by offset; what is no announcement is left out."""
        found = []
        for polled in read_topic(self._kafka, self.name):
            ids, payload, status = split_frames(polled.values)
            decoded = self._program.decode(payload)
            good = (status == 0) & (ids == self._schema_id) & (decoded.status == 0) & ~polled.value_null
            rows = np.flatnonzero(good)
            said = announcements(decoded.batch.take(rows))
            places = zip(polled.offsets[rows].tolist(), polled.timestamps[rows].tolist(), said, strict=True)
            found += [Announced(*place) for place in places]
        return sorted(found, key=lambda each: each.offset)

    def write(self, said: Announcement) -> int:
        """Announce; gives the offset once every replica has it. Retry when the broker does not confirm."""
        outcome: list[tuple[KafkaError | None, Message]] = []
        producer = self._producer or Producer(producer_config(self._kafka, MODELS.compression))
        self._producer = producer
        value = self._program.encode(announcement_batch([said]), frame_prefix(self._schema_id)).to_list()[0]
        producer.produce(
            self.name,
            value,
            f"{said.name}@{said.version}".encode(),
            on_delivery=lambda error, sent: outcome.append((error, sent)),
        )
        producer.flush(DELIVERY_S)
        error, sent = outcome[0] if outcome else (None, None)
        if sent is None or error is not None:
            raise Retry(f"{self.name} did not confirm the announcement: {error or 'no answer'}; try again")
        return int(sent.offset() or 0)
