"""Decisions as records: announcements on models.v1, everything on audit.v1."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from services.controller.core.state import Entry
from shared.codec.batch import Batch, Strings
from shared.models.announcement import Announcement, announcement_batch
from shared.runtime.tables import Table
from shared.runtime.unit import Out


@dataclass(frozen=True, slots=True)
class Outlet:
    """Both topics, the model's name and fingerprint, and who signs."""

    models: Table
    audit: Table
    name: str
    fingerprint: str
    sign: Callable[[Announcement], Announcement]

    def outs(self, entries: Sequence[Entry]) -> list[Out]:
        """The records of these decisions, in their order."""
        if not entries:
            return []
        said = [entry.announcement(self.name, self.fingerprint) for entry in entries]
        announced = [self._signed(each) for each in said if each is not None]
        audit = self._audit(entries)
        outs = [Out(self.audit.topic, Strings.repeated(self.name.encode(), len(entries)), audit)]
        if announced:
            keys = Strings.of([f"{each.name}@{each.version}".encode() for each in announced])
            outs.insert(0, Out(self.models.topic, keys, self.models.write(announcement_batch(announced))))
        return outs

    def _signed(self, said: Announcement) -> Announcement:
        said.check()
        return self.sign(said)

    def _audit(self, entries: Sequence[Entry]) -> Strings:
        return self.audit.write(
            Batch.of(
                {
                    "kind": _texts([entry.kind for entry in entries]),
                    "model_name": _texts([self.name] * len(entries)),
                    "model_version": _numbers([entry.version for entry in entries]),
                    "model_digest": _texts([entry.digest for entry in entries]),
                    "registry_offset": _numbers([-1] * len(entries)),
                    "actor": _texts([entry.actor for entry in entries]),
                    "reason": _texts([entry.reason for entry in entries]),
                    "detail": _texts([entry.detail_text() for entry in entries]),
                    "at": _numbers([entry.at for entry in entries]),
                    "previous": _texts([entry.previous for entry in entries]),
                    "state": _texts([entry.state for entry in entries]),
                    "evidence": _texts([entry.evidence for entry in entries]),
                    "labeled_sequence": _numbers([entry.labeled_sequence for entry in entries]),
                    "command_offset": _numbers([entry.command_offset for entry in entries]),
                }
            )
        )


def _texts(values: Sequence[str]) -> Strings:
    return Strings.of([value.encode("utf-8", "replace") for value in values])


def _numbers(values: Sequence[int]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.array(values, np.int64)
