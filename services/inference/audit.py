"""What this worker says of models on audit.v1."""

import io
import time

from confluent_kafka import KafkaError, Message, Producer
from fastavro import parse_schema, schemaless_writer

from schemas import platform_schema
from services.inference.roles import Verdict
from shared.errors import Fatal
from shared.kafka.transactions import producer_config
from shared.settings import KafkaSettings


class AuditTrail:
    """Writes verdicts as they fall; a verdict that cannot be written stops the worker at the next one."""

    def __init__(self, kafka: KafkaSettings, topic: str, prefix: bytes, actor: str) -> None:
        self._producer = Producer(producer_config(kafka, "none"))
        self._schema = parse_schema(platform_schema("audit"))
        self._topic, self._prefix, self._actor = topic, prefix, actor
        self._failed: list[KafkaError] = []

    def __call__(self, verdict: Verdict) -> None:
        """Send one verdict and wait for the broker's word; while it is away the client keeps trying.

        Raises:
            Fatal: a verdict was lost; a new start says what counts again.
        """
        if self._failed:
            raise Fatal(f"a verdict did not reach {self._topic}: {self._failed[0]}")
        said = verdict.announcement
        record = {
            "kind": verdict.kind,
            "model_name": said.name if said else "",
            "model_version": said.version if said else 0,
            "model_digest": said.digest if said else "",
            "registry_offset": verdict.offset,
            "actor": self._actor,
            "reason": verdict.reason,
            "detail": verdict.detail,
            "at": time.time_ns() // 1_000_000,
            "state": said.state if said else "",
        }
        buffer = io.BytesIO()
        buffer.write(self._prefix)
        schemaless_writer(buffer, self._schema, record)
        key = said.name.encode("utf-8", "replace")[:100] if said else b""
        self._producer.produce(self._topic, buffer.getvalue(), key, on_delivery=self._delivered)
        self._producer.flush(10.0)

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failed.append(error)
