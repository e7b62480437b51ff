"""Confluent's wire format: a zero byte and a big-endian 32-bit schema id before each datum."""

import numpy as np
import numpy.typing as npt

from shared.codec.batch import Bytes, Ints, Strings
from shared.codec.decode import Status
from shared.kernels import kernel

SchemaIds = npt.NDArray[np.int32]
FRAME_BYTES = 5
FRAME_REASONS = ("ok", "frame.short", "frame.magic")
_SHORT, _MAGIC = 1, 2


@kernel
def _split(data: Bytes, starts: Ints, lengths: Ints, ids: SchemaIds, status: Status) -> None:
    for row in range(starts.size):
        at = starts[row]
        if lengths[row] <= FRAME_BYTES:
            status[row] = _SHORT
        elif data[at] != 0:
            status[row] = _MAGIC
        else:
            number = np.uint32(0)
            for i in range(1, FRAME_BYTES):
                number = np.uint32((number << np.uint32(8)) | np.uint32(data[at + i]))
            ids[row] = np.int32(number)


def split_frames(values: Strings) -> tuple[SchemaIds, Strings, Status]:
    """Each row's schema id, its datum as a view, and a status that is an index into `FRAME_REASONS`.

    Short is a row of at most five bytes: nothing stands behind the frame. A bad row has id 0 and no bytes.

    >>> ids, payload, status = split_frames(Strings.of([frame_prefix(7) + b"x", b"", b"{'json': 1}"]))
    >>> ids.tolist(), payload.to_list(), [FRAME_REASONS[s] for s in status.tolist()]
    ([7, 0, 0], [b'x', b'', b''], ['ok', 'frame.short', 'frame.magic'])
    """
    ids = np.zeros(len(values), np.int32)
    status = np.zeros(len(values), np.int8)
    _split(*values.plain(), ids, status)
    cut = np.where(status == 0, FRAME_BYTES, 0)
    lengths = np.where(status == 0, values.lengths - FRAME_BYTES, 0)
    return ids, Strings(values.data, values.starts + cut, lengths), status


def frame_prefix(schema_id: int) -> bytes:
    """The five bytes before a datum of this schema."""
    return b"\0" + schema_id.to_bytes(4, "big")
