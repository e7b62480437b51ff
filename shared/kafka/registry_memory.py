"""A schema registry in memory: the twin of `Registry` for tests and dry runs, with the same answers."""

import copy
from collections.abc import Mapping
from typing import Any

from shared.contracts.compat import Level, obstacles
from shared.errors import Refused
from shared.kafka.registry import Schema


class MemoryRegistry:
    """Schemas by id and by subject; ids count from 1, an equal schema keeps its id in all subjects."""

    def __init__(self) -> None:
        self._schemas: list[Schema] = []
        self._subjects: dict[str, list[int]] = {}
        self._levels: dict[str, Level] = {}

    def register(self, subject: str, schema: Mapping[str, Any]) -> int:
        """The id of `schema` under `subject`, registered if it is new; Refused if it is incompatible."""
        made = copy.deepcopy(dict(schema))
        ids = self._subjects.setdefault(subject, [])
        known = self._schemas.index(made) + 1 if made in self._schemas else None
        if known is not None and known in ids:
            return known
        if reasons := self.check(subject, made):
            raise Refused(f"the registry refuses {subject}: {'; '.join(reasons)}")
        if known is None:
            self._schemas.append(made)
            known = len(self._schemas)
        ids.append(known)
        return known

    def schema_of(self, schema_id: int) -> Schema | None:
        """The schema with this id; None if nobody knows it."""
        if not 1 <= schema_id <= len(self._schemas):
            return None
        return self._schemas[schema_id - 1]

    def ids_of(self, subject: str) -> dict[int, Schema]:
        """Every version of a subject, oldest first, by id; empty for an unknown subject."""
        return {i: self._schemas[i - 1] for i in self._subjects.get(subject, ())}

    def check(self, subject: str, schema: Mapping[str, Any]) -> list[str]:
        """Why it would be refused; empty when it would be taken."""
        level = self._levels.get(subject, "BACKWARD_TRANSITIVE")
        reasons = []
        for old in self.ids_of(subject).values():
            found = obstacles(schema, old)
            found += obstacles(old, schema) if level == "FULL_TRANSITIVE" else []
            reasons += [f"{obstacle.message}; {obstacle.fix}" for obstacle in found]
        return reasons

    def set_compatibility(self, subject: str, level: Level) -> None:
        """How the subject may change from now on."""
        self._levels[subject] = level
