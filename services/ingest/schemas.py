"""The registry's word on schema ids, kept: a decoder for ever, a refusal for a minute."""

import time
from collections.abc import Callable, Mapping

from services.ingest.core.intake import Unusable
from shared.codec.program import Program
from shared.codec.resolve import resolve_program
from shared.codec.schema import Schema, SchemaRefused
from shared.kafka.registry import SchemaRegistry

MISS_TTL_S = 60.0
MOST_MISSES = 10_000


class RegistrySchemas:
    """Decoders from writers' schemas to the pinned one of each topic.

    Args:
        registry: asked once for each id and topic.
        pinned: the reader's schema of each topic.
        clock: monotonic seconds, for forgetting refusals.
    """

    def __init__(
        self,
        registry: SchemaRegistry,
        pinned: Mapping[str, Schema],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry, self._pinned, self._clock = registry, pinned, clock
        self._programs: dict[tuple[str, int], Program] = {}
        self._misses: dict[tuple[str, int], tuple[Unusable, float]] = {}

    def program_for(self, topic: str, schema_id: int) -> Program | Unusable:
        """The decoder, or why there is none; ids of other subjects and unknown ones are refused.

        Raises:
            Retry: the registry cannot be asked.
        """
        known = self._programs.get((topic, schema_id))
        if known is not None:
            return known
        missed = self._misses.get((topic, schema_id))
        if missed is not None and self._clock() - missed[1] < MISS_TTL_S:
            return missed[0]
        found = self._ask(topic, schema_id)
        if isinstance(found, Program):
            self._programs[topic, schema_id] = found
        else:
            if len(self._misses) >= MOST_MISSES:
                self._misses.clear()
            self._misses[topic, schema_id] = (found, self._clock())
        return found

    def _ask(self, topic: str, schema_id: int) -> Program | Unusable:
        if schema_id <= 0:
            return Unusable.UNKNOWN
        writer = self._registry.schema_of(schema_id)
        if writer is None:
            return Unusable.UNKNOWN
        if schema_id not in self._registry.ids_of(f"{topic}-value"):
            return Unusable.FOREIGN
        try:
            return resolve_program(writer, self._pinned[topic])
        except SchemaRefused:
            return Unusable.INCOMPATIBLE
