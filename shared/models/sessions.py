"""Boosted trees in onnxruntime, called like a network: one thread, on CPU."""

from typing import Any

import numpy as np
import torch

from shared.models.ensemble import INPUT, Ensemble, write_onnx
from shared.models.manifest import Trees
from shared.models.safety import ModelRefused


class TreeNetwork:
    """float64[n, inputs] to float64 probabilities: [n] of the positive class, or [n, classes]."""

    def __init__(self, ensemble: Ensemble, architecture: Trees) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            detail = "this host has no onnxruntime; install it to serve trees"
            raise ModelRefused("runtime.missing", detail) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 4
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        self._binary = architecture.outputs == 1
        try:
            self._session: Any = onnxruntime.InferenceSession(
                write_onnx(ensemble, architecture), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has no common class of its own
            if "alloc" in str(error):
                raise MemoryError(str(error)) from error
            raise ModelRefused("format.onnx", f"onnxruntime does not take it: {error}"[:300]) from error

    def numpy(self, features: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The same on arrays, without a copy of `features` where they are C-contiguous."""
        (out,) = self._session.run(None, {INPUT: features})
        return np.asarray(out[:, 0] if self._binary else out, np.float64)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """On CPU tensors."""
        return torch.from_numpy(self.numpy(x.numpy()))
