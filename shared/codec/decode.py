"""The kernel that reads Avro: one call interprets a program over all rows of a batch.

Nothing is trusted: each read is checked against the row's own end, lengths and counts are bounded by the
bytes that are left, nothing is allocated by what a datum says, and the schema alone bounds the nesting.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from shared.codec import ops as op
from shared.codec.batch import Bytes, Floats, Ints, Mask
from shared.codec.words import load32, load64
from shared.kernels import kernel

Status = npt.NDArray[np.int8]
_HIGH_BITS = np.uint64(0x8080808080808080)
_NO_BITS = np.uint64(0)
_ONE = np.uint64(1)


@kernel
def read_long(data: Bytes, at: int, end: int) -> tuple[Any, Any]:
    """A zigzag varint and where the next byte stands, or 0 and a negated status."""
    if at < end:
        first = np.uint64(data[np.uint64(at)])
        if first < np.uint64(0x80):
            return np.int64(first >> _ONE) ^ -np.int64(first & _ONE), at + 1
    limit = min(end, at + 10)
    total = _NO_BITS
    shift = _NO_BITS
    here = at
    while here < limit:
        byte = np.uint64(data[np.uint64(here)])
        total |= (byte & np.uint64(0x7F)) << shift
        here += 1
        if byte < np.uint64(0x80):
            # The tenth byte has room for one more bit.
            if here == at + 10 and byte > _ONE:
                return 0, -op.VARINT
            return np.int64(total >> _ONE) ^ -np.int64(total & _ONE), here
        shift += np.uint64(7)
    if limit == at + 10:
        return 0, -op.VARINT
    return 0, -op.EOF


@kernel
def length_status(length: int, left: int) -> int:
    """0 when `left` bytes can hold `length` bytes or items, else what is wrong with it."""
    if length < 0 or length > op.MOST_LENGTH:
        return op.LENGTH
    return op.EOF if length > left else 0


@kernel
def is_utf8(data: Bytes, at: int, end: int) -> bool:
    """Whether these bytes are well-formed UTF-8: no overlong forms, no surrogates, nothing past U+10FFFF."""
    while at < end:
        if at + 8 <= end and (load64(data, at) & _HIGH_BITS) == _NO_BITS:
            at += 8
            continue
        lead = np.int64(data[np.uint64(at)])
        if lead < 0x80:
            at += 1
            continue
        if lead < 0xC2 or lead > 0xF4:
            return False
        more = 1 if lead < 0xE0 else 2 if lead < 0xF0 else 3
        if at + more >= end:
            return False
        lowest = 0xA0 if lead == 0xE0 else 0x90 if lead == 0xF0 else 0x80
        highest = 0x9F if lead == 0xED else 0x8F if lead == 0xF4 else 0xBF
        second = np.int64(data[np.uint64(at + 1)])
        if second < lowest or second > highest:
            return False
        for i in range(2, more + 1):
            if (data[np.uint64(at + i)] & 0xC0) != 0x80:
                return False
        at += more + 1
    return True


@kernel
def _next_block(data: Bytes, at: int, end: int) -> tuple[Any, Any, Any]:
    """The count of an array's or map's next block, the end it claims or -1, and where its items begin."""
    count, at = read_long(data, at, end)
    if at < 0 or count == 0:
        return 0, -1, at
    claimed = -1
    if count < 0:
        # The least int64 has no opposite; it stays negative and is refused as a length.
        count = -count
        size, at = read_long(data, at, end)
        if at < 0:
            return 0, -1, at
        wrong = length_status(size, end - at)
        if wrong != 0:
            return 0, -1, -wrong
        claimed = at + size
    # No item takes less than a byte: the schema would have been refused.
    wrong = length_status(count, end - at)
    if wrong != 0:
        return 0, -1, -wrong
    return count, claimed, at


@kernel
def decode_rows(  # noqa: C901 (one switch; its arms share the position and cannot be apart without cost)
    data: Bytes,
    starts: Ints,
    lengths: Ints,
    program: Ints,
    targets: Ints,
    depth: int,
    numbers: Ints,
    doubles: Floats,
    begins: Ints,
    sizes: Ints,
    flags: Mask,
    status: Status,
) -> None:
    """Run `program` over each row; values go to `[slot, row]`, what is wrong to `status[row]`.

    `doubles` is `numbers` seen as float64. The matrices come zeroed: what a null skips stays zero.
    """
    left = np.empty(depth, np.int64)
    claims = np.empty(depth, np.int64)
    word = np.empty(1, np.uint32)
    single = word.view(np.float32)
    for row in range(starts.size):
        at = starts[row]
        end = at + lengths[row]
        if at < 0 or end < at or end > data.size:
            status[row] = op.VIEW
            continue
        wrong = 0
        pc = 0
        while wrong == 0:
            code = program[pc, 0]
            slot = program[pc, 1]
            here = pc
            pc += 1
            if code == op.LONG:
                value, at = read_long(data, at, end)
                numbers[slot, row] = value
                if at < 0:
                    wrong = -at
            elif code == op.DOUBLE:
                if end - at < 8:
                    wrong = op.EOF
                else:
                    numbers[slot, row] = np.int64(load64(data, at))
                    at += 8
            elif code == op.STRING or code == op.BYTES:
                size, at = read_long(data, at, end)
                if at < 0:
                    wrong = -at
                else:
                    wrong = length_status(size, end - at)
                    if wrong == 0:
                        if code == op.STRING and not is_utf8(data, at, at + size):
                            wrong = op.UTF8
                        begins[slot, row] = at
                        sizes[slot, row] = size
                        at += size
            elif code == op.INT:
                value, at = read_long(data, at, end)
                numbers[slot, row] = value
                if at < 0:
                    wrong = -at
                elif value != np.int64(np.int32(value)):
                    wrong = op.RANGE
            elif code == op.OPTIONAL:
                value, at = read_long(data, at, end)
                if at < 0:
                    wrong = -at
                elif value == program[here, 2]:
                    pc = program[here, 3]
                elif value == 1 - program[here, 2]:
                    flags[slot, row] = True
                else:
                    wrong = op.UNION
            elif code == op.BOOL:
                if at >= end:
                    wrong = op.EOF
                elif data[np.uint64(at)] > 1:
                    wrong = op.BOOLEAN
                else:
                    flags[slot, row] = data[np.uint64(at)] == 1
                    at += 1
            elif code == op.SYMBOL:
                value, at = read_long(data, at, end)
                if at < 0:
                    wrong = -at
                elif value < 0 or value >= program[here, 2]:
                    wrong = op.ENUM
                else:
                    table = program[here, 3]
                    if table >= 0:
                        value = targets[table + value]
                    numbers[slot, row] = value
                    if value < 0:
                        wrong = op.ENUM
            elif code == op.FIXED:
                size = program[here, 2]
                if end - at < size:
                    wrong = op.EOF
                else:
                    begins[slot, row] = at
                    sizes[slot, row] = size
                    at += size
            elif code == op.FLOAT:
                if end - at < 4:
                    wrong = op.EOF
                else:
                    word[0] = load32(data, at)
                    doubles[slot, row] = np.float64(single[0])
                    at += 4
            elif code == op.SET:
                flags[slot, row] = True
            elif code == op.JUMP:
                pc = program[here, 3]
            elif code == op.BRANCH:
                value, at = read_long(data, at, end)
                if at < 0:
                    wrong = -at
                elif value < 0 or value >= program[here, 3]:
                    wrong = op.UNION
                else:
                    pc = targets[program[here, 2] + value]
            elif code == op.BLOCKS:
                left[program[here, 2]] = 0
                claims[program[here, 2]] = -1
            elif code == op.NEXT:
                level = program[here, 2]
                if left[level] == 0:
                    if claims[level] >= 0 and claims[level] != at:
                        wrong = op.LENGTH
                    else:
                        left[level], claims[level], at = _next_block(data, at, end)
                        if at < 0:
                            wrong = -at
                        elif left[level] == 0:
                            pc = program[here, 3]
                            continue
                left[level] -= 1
            elif code == op.NUMBER_AS_DOUBLE:
                value, at = read_long(data, at, end)
                if at < 0:
                    wrong = -at
                elif program[here, 2] == 1 and value != np.int64(np.int32(value)):
                    wrong = op.RANGE
                elif program[here, 3] == 1:
                    doubles[slot, row] = np.float64(np.float32(value))
                else:
                    doubles[slot, row] = np.float64(value)
            elif code == op.OPEN:
                begins[slot, row] = at
            elif code == op.CLOSE:
                sizes[slot, row] = at - begins[slot, row]
            elif code == op.FAIL:
                wrong = program[here, 2]
            else:
                if at != end:
                    wrong = op.TRAILING
                break
        status[row] = wrong
