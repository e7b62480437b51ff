"""Why a prediction came out as it did: integrated gradients, for a share of the events.

Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, 2017; computed by captum.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from services.inference.core.lineup import ActiveModel
from services.inference.core.routing import Order
from services.inference.core.rows import double_arrays, text_array
from shared.codec.batch import Batch, Floats, Strings
from shared.errors import Refused
from shared.models.architectures import Network
from shared.models.loading import LoadedModel

STEPS = 32
# Each row becomes STEPS rows on the way from the baseline.
ROWS_AT_ONCE = 512
_SALT = b"millrace.attributions.v1\n"


class Explainer:
    """Attributions of the events that a share in (0, 1] names: by their ids, so that a replay names the same.

    Only networks have gradients: answers of trees are not explained. Refused where captum is not installed.
    """

    def __init__(self, share: float, feature_names: Sequence[str]) -> None:
        try:
            from captum.attr import IntegratedGradients
        except ImportError as error:
            raise Refused(
                "attributions are asked for and captum is not installed; "
                "install `millrace[attributions]` or set the share to 0"
            ) from error
        self._gradients: Any = IntegratedGradients
        self._share, self._order = share, Order(_SALT)
        self._names = text_array([name.encode() for name in feature_names])

    def explain(
        self, models: Sequence[ActiveModel], predictions: Batch, matrix: Floats
    ) -> tuple[list[Batch], int]:
        """Rows of attributions.v1 for predictions of vectors float64[n, k]; and how many could not be explained.

        Off the sampled path a model may fail: its answer stands, and the row is left out.
        """
        named = self._order.front(predictions["event_id"].strings, self._share)
        found, left_out = [], 0
        for model in models:
            rows = np.flatnonzero(named & (predictions["registry_offset"].array == model.registry_offset))
            if len(rows) and isinstance(model.scorer.model.network, Network):
                explained = self._rows(model.scorer.model, predictions.take(rows), matrix[rows])
                left_out += len(rows) - explained.rows
                found.append(explained)
        return [rows for rows in found if rows.rows], left_out

    def _rows(self, model: LoadedModel, predictions: Batch, matrix: Floats) -> Batch:
        classes = predictions["predicted_class"].array if model.classes > 2 else None
        try:
            values, baseline = self._integrated(model, matrix, classes)
        except Exception:  # what a model raises is its own; the caller counts the rows
            return predictions.take(np.arange(0))
        gap = values.sum(axis=1) - (predictions["score"].array - baseline)
        explained = predictions.having(
            baseline_score=baseline,
            features=Strings.repeated(self._names, len(values)),
            values=double_arrays(values),
            gap=gap,
        )
        return explained.take(np.isfinite(gap))

    def _integrated(self, model: LoadedModel, matrix: Floats, classes: Any) -> tuple[Floats, Floats]:
        """Values float64[n, k] and outputs float64[n] at the baseline, of several classes the predicted."""
        centre = torch.from_numpy(model.centre[None, :]).to(model.device)
        gradients = self._gradients(model.network)
        values = np.empty(matrix.shape, np.float64)
        for begin in range(0, len(matrix), ROWS_AT_ONCE):
            part = slice(begin, begin + ROWS_AT_ONCE)
            inputs = torch.from_numpy(matrix[part]).to(model.device)
            target = None if classes is None else torch.from_numpy(classes[part]).to(model.device)
            found = gradients.attribute(inputs, centre, target=target, n_steps=STEPS)
            values[part] = found.detach().cpu().numpy()
        with torch.inference_mode():
            outputs = model.network(centre).cpu().numpy()
        return values, np.repeat(outputs, len(matrix)) if classes is None else outputs[0, classes]
