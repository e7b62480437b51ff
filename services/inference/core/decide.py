"""Scores to business categories, by the thresholds that the pipeline declares; classes to their names."""

from collections.abc import Iterable

import numpy as np

from shared.codec.batch import Floats, Ints, Strings


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


class ClassNames:
    """The names of the label's classes, in declared order.

    >>> ClassNames(["low", "mid", "high"]).of(np.array([2, 0])).to_list()
    [b'high', b'low']
    """

    def __init__(self, classes: Iterable[object]) -> None:
        self.names = tuple(str(each) for each in classes)
        self._texts = Strings.of([name.encode() for name in self.names])

    def of(self, predicted: Ints) -> Strings:
        """The name of each class index. Shares one buffer."""
        return self._texts.take(predicted)
