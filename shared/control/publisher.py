"""Writes outside of any transaction: idempotent, in order, and delivered before the caller goes on."""

import asyncio
from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from shared.errors import Fatal
from shared.kafka.transactions import enqueue, producer_config
from shared.runtime.unit import Out
from shared.settings import KafkaSettings
from shared.topics import Compression

DELIVERY_S = 60.0


class Publisher:
    """One idempotent producer; places by key as Java does where the caller names no partition."""

    def __init__(self, settings: KafkaSettings, compression: Compression = "gzip") -> None:
        self._failed: KafkaError | None = None
        self._producer = Producer(
            {
                **producer_config(settings, compression),
                "delivery.timeout.ms": int(DELIVERY_S * 1_000),
                "on_delivery": self._delivered,
            }
        )

    async def write(self, outs: Sequence[Out]) -> None:
        """Return when the broker has every record, in a thread so that the loop goes on.

        Raises:
            Fatal: one was not delivered. Some may stand: what is written here must bear being written again.
        """
        await asyncio.to_thread(self.write_now, outs)

    def write_now(self, outs: Sequence[Out]) -> None:
        """The same for callers without a loop."""
        try:
            for out in outs:
                enqueue(self._producer, out)
            left = self._producer.flush(DELIVERY_S + 5.0)
        except (KafkaException, BufferError) as failure:
            raise Fatal(f"records could not be written: {failure}") from failure
        if self._failed is not None or left:
            raise Fatal(f"records were not delivered: {self._failed or 'no answer in time'}")

    def close(self) -> None:
        """Forget what was not delivered."""
        self._producer.purge()
        self._producer.flush(1.0)

    def _delivered(self, error: KafkaError | None, message: Message) -> Any:  # noqa: ARG002
        if error is not None:
            self._failed = error
