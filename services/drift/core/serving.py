"""Which model version serves: late outcomes of the last one come among those of the next."""

from typing import Any

from services.drift.core.kernels import Ints

PERSISTENCE = 20
"""Rows of others, less those of the version in force, after which the newest of them is in force."""


class Serving:
    """Cuts rows by version; rows of a version that is not in force are left out.

    >>> import numpy as np
    >>> list(Serving().split(np.array([1, 1, 1])))
    [(True, slice(0, 3, None))]
    """

    def __init__(self) -> None:
        self._version: int | None = None
        self._others = 0

    def split(self, versions: Ints) -> list[tuple[bool, slice]]:
        """Stretches of the version in force, and whether each is the first of its version."""
        if not len(versions):
            return []
        anew = self._version is None
        if self._version is None:
            self._version = int(versions[0])
        if self._others == 0 and (versions == self._version).all():
            return [(anew, slice(0, len(versions)))]
        return self._row_by_row(versions.tolist(), anew)

    def _row_by_row(self, versions: list[int], anew: bool) -> list[tuple[bool, slice]]:
        parts: list[tuple[bool, slice]] = []
        for row, version in enumerate(versions):
            if version == self._version:
                self._others = max(0, self._others - 1)
            else:
                self._others += 1
                if self._others < PERSISTENCE:
                    continue
                self._version, self._others, anew = version, 0, True
            if parts and not anew and parts[-1][1].stop == row:
                parts[-1] = parts[-1][0], slice(parts[-1][1].start, row + 1)
            else:
                parts.append((anew, slice(row, row + 1)))
            anew = False
        return parts

    def state(self) -> dict[str, Any]:
        """What `load` takes."""
        return {"version": self._version, "others": self._others}

    def load(self, state: dict[str, Any]) -> None:
        """Go on where `state` was read."""
        self._version, self._others = state["version"], state["others"]
