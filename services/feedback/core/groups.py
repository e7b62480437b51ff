"""Versions in their roles, numbered in the order in which they first appear on the ledger."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.codec.batch import Batch, Ints, Strings
from shared.codec.interner import Interner


class Groups:
    """Numbers (version, digest, role); each row of a batch gets its group's number."""

    def __init__(self) -> None:
        self.named: list[tuple[int, bytes, bytes]] = []
        self._numbers: dict[tuple[int, bytes, bytes], int] = {}
        self._texts = Interner()

    def __len__(self) -> int:
        return len(self.named)

    def of(self, rows: Batch) -> Ints:
        """The group of each row; new ones get the next number."""
        columns = [
            rows["model_version"].array.astype(np.int64),
            self._texts.intern(rows["model_digest"].strings),
            self._texts.intern(rows["role"].strings),
        ]
        mixed = np.zeros(rows.rows, np.int64)
        for column in columns:
            mixed = mixed * 1_000_003 + column
        _, first, where = np.unique(mixed, return_index=True, return_inverse=True)
        numbers = np.empty(first.size, np.int64)
        for at in np.argsort(first).tolist():
            version, digest, role = (int(column[first[at]]) for column in columns)
            numbers[at] = self._number((version, self._texts.key(digest), self._texts.key(role)))
        return numbers[where]

    def _number(self, name: tuple[int, bytes, bytes]) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self.named)
            self.named.append(name)
        return self._numbers[name]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The names by number."""
        texts = Strings.of([part for _, digest, role in self.named for part in (digest, role)]).compact()
        return {
            "versions": np.array([version for version, _, _ in self.named], np.int64),
            "data": texts.data,
            "lengths": texts.lengths,
        }

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take up what `arrays` gave."""
        texts = Strings.packed(arrays["data"], arrays["lengths"]).to_list()
        self.named, self._numbers = [], {}
        for at, version in enumerate(arrays["versions"].tolist()):
            self._number((version, texts[2 * at], texts[2 * at + 1]))
