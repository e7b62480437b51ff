"""The kernel that writes Avro: one call interprets a program over all rows of a batch.

Texts of different columns lie in different buffers, so they come as addresses with sizes; each is checked
against its buffer before it is read. The caller holds the buffers for as long as the call lasts.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numba import types
from numba.extending import intrinsic

from shared.codec import ops as op
from shared.codec.batch import Bytes, Ints, Mask
from shared.codec.decode import is_utf8
from shared.codec.words import store64
from shared.kernels import kernel

_ONE = np.uint64(1)
_MORE = np.uint64(0x80)
_SEVEN = np.uint64(7)


def _loader(word: Any) -> Callable[[int], Any]:
    """An intrinsic that reads one unaligned little-endian `word` (a numba type) at an address."""

    def load(_typing: Any, _address: Any) -> tuple[Any, Any]:
        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], context.get_value_type(word).as_pointer())
            return builder.load(pointer, align=1)

        return word(types.int64), generate

    return cast(Callable[[int], Any], intrinsic(load))


_byte_at = _loader(types.uint8)
_word_at = _loader(types.uint64)


@kernel
def _copy(address: int, length: int, out: Bytes, at: int) -> None:
    if length >= 8:
        i = 0
        while i + 8 <= length:
            store64(out, at + i, _word_at(address + i))
            i += 8
        # The last word may overlap the one before it.
        store64(out, at + length - 8, _word_at(address + length - 8))
        return
    for i in range(length):
        out[np.uint64(at + i)] = _byte_at(address + i)


@kernel
def _write_long(out: Bytes, at: int, value: int) -> int:
    rest = np.uint64((value << 1) ^ (value >> 63))
    while rest >= _MORE:
        out[np.uint64(at)] = np.uint8((rest & np.uint64(0x7F)) | _MORE)
        rest >>= _SEVEN
        at += 1
    out[np.uint64(at)] = np.uint8(rest)
    return at + 1


@kernel
def _text_bytes(begins: Ints, sizes: Ints, limits: Ints) -> int:
    """How many bytes all texts have that lie within their buffers; the others are told when written."""
    total = 0
    for slot in range(begins.shape[0]):
        for row in range(begins.shape[1]):
            size = sizes[slot, row]
            if begins[slot, row] >= 0 and 0 <= size <= limits[slot] - begins[slot, row]:
                total += size
    return total


@kernel
def encode_rows(  # noqa: C901 (one switch; its arms share the position and cannot be apart without cost)
    program: Ints,
    most_bytes: int,
    prefix: Bytes,
    numbers: Ints,
    flags: Mask,
    begins: Ints,
    sizes: Ints,
    addresses: Ints,
    limits: Ints,
    starts: Ints,
    lengths: Ints,
) -> tuple[Bytes, int, int, int, int]:
    """Write each row behind `prefix`, one behind the other, into a new buffer.

    `most_bytes` bounds what a row takes beside its texts. Returned are the buffer, how much of it is used,
    and the status, row and program line of the first thing that cannot be encoded (status 0: nothing).
    """
    rows = starts.size
    room = rows * (most_bytes + prefix.size) + _text_bytes(begins, sizes, limits)
    out = np.empty(room, np.uint8)
    at = 0
    for row in range(rows):
        starts[row] = at
        for i in range(prefix.size):
            out[np.uint64(at + i)] = prefix[i]
        at += prefix.size
        pc = 0
        while True:
            code = program[pc, 0]
            slot = program[pc, 1]
            wrong = 0
            if code == op.END:
                break
            if code == op.LONG:
                at = _write_long(out, at, numbers[slot, row])
            elif code == op.DOUBLE:
                store64(out, at, np.uint64(numbers[slot, row]))
                at += 8
            elif code == op.STRING or code == op.BYTES or code == op.FIXED or code == op.RAW:
                begin = begins[slot, row]
                size = sizes[slot, row]
                if begin < 0 or size < 0 or size > limits[slot] - begin:
                    wrong = op.VIEW
                elif code == op.FIXED and size != program[pc, 2]:
                    wrong = op.SIZE
                else:
                    if code == op.STRING or code == op.BYTES:
                        at = _write_long(out, at, size)
                    _copy(addresses[slot] + begin, size, out, at)
                    if code == op.STRING and not is_utf8(out, at, at + size):
                        wrong = op.UTF8
                    at += size
            elif code == op.INT:
                value = numbers[slot, row]
                at = _write_long(out, at, value)
                if value != np.int64(np.int32(value)):
                    wrong = op.RANGE
            elif code == op.OPTIONAL:
                null = program[pc, 2]
                if flags[slot, row]:
                    out[np.uint64(at)] = np.uint8(2 * (1 - null))
                else:
                    out[np.uint64(at)] = np.uint8(2 * null)
                    pc = program[pc, 3] - 1
                at += 1
            elif code == op.SET:
                # Here a demand: the row has a value.
                if not flags[slot, row]:
                    wrong = op.NULL
            elif code == op.BOOL:
                out[np.uint64(at)] = np.uint8(flags[slot, row])
                at += 1
            elif code == op.SYMBOL:
                value = numbers[slot, row]
                at = _write_long(out, at, value)
                if value < 0 or value >= program[pc, 2]:
                    wrong = op.ENUM
            elif code == op.FLOAT:
                bits = np.uint64(numbers[slot, row])
                for k in range(4):
                    out[np.uint64(at + k)] = np.uint8((bits >> np.uint64(8 * k)) & np.uint64(0xFF))
                at += 4
            if wrong != 0:
                return out, 0, wrong, row, pc
            pc += 1
        lengths[row] = at - starts[row]
    return out, at, 0, 0, 0
