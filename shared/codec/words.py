"""Little-endian words within byte arrays, for kernels. None checks a bound: the caller must have done so.

Indexes are unsigned, so that no wrap-around test stands between the bytes and LLVM makes one access of them.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from shared.kernels import kernel

_Bytes = npt.NDArray[np.uint8]


@kernel
def load64(data: _Bytes, at: int) -> Any:
    """Eight bytes from `at` on, little-endian, as uint64."""
    i = np.uint64(at)
    return (
        np.uint64(data[i])
        | (np.uint64(data[i + np.uint64(1)]) << np.uint64(8))
        | (np.uint64(data[i + np.uint64(2)]) << np.uint64(16))
        | (np.uint64(data[i + np.uint64(3)]) << np.uint64(24))
        | (np.uint64(data[i + np.uint64(4)]) << np.uint64(32))
        | (np.uint64(data[i + np.uint64(5)]) << np.uint64(40))
        | (np.uint64(data[i + np.uint64(6)]) << np.uint64(48))
        | (np.uint64(data[i + np.uint64(7)]) << np.uint64(56))
    )


@kernel
def load32(data: _Bytes, at: int) -> Any:
    """Four bytes from `at` on, little-endian, as uint32."""
    i = np.uint64(at)
    return (
        np.uint32(data[i])
        | (np.uint32(data[i + np.uint64(1)]) << np.uint32(8))
        | (np.uint32(data[i + np.uint64(2)]) << np.uint32(16))
        | (np.uint32(data[i + np.uint64(3)]) << np.uint32(24))
    )


@kernel
def store64(out: _Bytes, at: int, word: Any) -> None:
    """Write the uint64 `word` to the eight bytes from `at` on."""
    i = np.uint64(at)
    for k in range(8):
        out[i + np.uint64(k)] = np.uint8((word >> np.uint64(8 * k)) & np.uint64(0xFF))


@kernel
def copy(data: _Bytes, begin: int, length: int, out: _Bytes, at: int) -> None:
    """Copy `data[begin : begin + length]` to `out[at:]`; the two do not overlap."""
    if length >= 8:
        i = 0
        while i + 8 <= length:
            store64(out, at + i, load64(data, begin + i))
            i += 8
        # The last word may overlap the one before it.
        store64(out, at + length - 8, load64(data, begin + length - 8))
        return
    for i in range(length):
        out[np.uint64(at + i)] = data[np.uint64(begin + i)]
