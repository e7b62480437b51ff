"""Scores to business categories, by the thresholds that the pipeline declares."""

from collections.abc import Iterable

import numpy as np

from shared.codec.batch import Floats, Strings


class Decisions:
    """Categories by ascending lower bounds, the first of which is 0.

    >>> Decisions([("approve", 0.0), ("review", 0.5)]).decide(np.array([0.49, 0.5, 1.0])).to_list()
    [b'approve', b'review', b'review']
    """

    def __init__(self, categories: Iterable[tuple[str, float]]) -> None:
        pairs = list(categories)
        self.labels = tuple(label for label, _ in pairs)
        self._bounds = np.array([start for _, start in pairs], np.float64)
        if not pairs or self._bounds[0] != 0.0 or (np.diff(self._bounds) <= 0).any():
            raise ValueError(f"thresholds must ascend from 0.0, not {self._bounds.tolist()}")
        self._texts = Strings.of([label.encode() for label in self.labels])

    def decide(self, scores: Floats) -> Strings:
        """The category of each score in [0, 1]: the last whose bound is not above it. Shares one buffer."""
        return self._texts.take(np.searchsorted(self._bounds, scores, side="right") - 1)
