"""Hashes of many rows in one call: XXH64 for fingerprints and tables, murmur2 for Kafka's partitions.

XXH64 is bit-equal to the `xxhash` package over the same bytes, `partition_of` to the default partitioner of
the Java client, so that a key lies where every Java, Node or librdkafka (`murmur2_random`) producer puts it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from shared.codec.batch import Bytes, Floats, Ints, Strings
from shared.codec.words import load32, load64
from shared.kernels import kernel

Hashes = npt.NDArray[np.uint64]
Murmurs = npt.NDArray[np.uint32]
Partitions = npt.NDArray[np.int32]

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)
_M2 = np.uint32(0x5BD1E995)
_M2_SEED = np.uint32(0x9747B28C)


@kernel
def _rotated(value: Any, bits: int) -> Any:
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@kernel
def _round(lane: Any, word: Any) -> Any:
    return _rotated(lane + word * _P2, 31) * _P1


@kernel
def _merged(total: Any, lane: Any) -> Any:
    return (total ^ _round(np.uint64(0), lane)) * _P1 + _P4


@kernel
def _avalanche(total: Any) -> Any:
    total = (total ^ (total >> np.uint64(33))) * _P2
    total = (total ^ (total >> np.uint64(29))) * _P3
    return total ^ (total >> np.uint64(32))


@kernel
def xxh64(data: Bytes, begin: int, length: int, seed: Any) -> Any:
    """XXH64 of `data[begin : begin + length]`; `seed` and result uint64. For use inside kernels."""
    at = begin
    end = begin + length
    if length >= 32:
        a = seed + _P1 + _P2
        b = seed + _P2
        c = seed
        d = seed - _P1
        while at + 32 <= end:
            a = _round(a, load64(data, at))
            b = _round(b, load64(data, at + 8))
            c = _round(c, load64(data, at + 16))
            d = _round(d, load64(data, at + 24))
            at += 32
        total = _rotated(a, 1) + _rotated(b, 7) + _rotated(c, 12) + _rotated(d, 18)
        total = _merged(_merged(_merged(_merged(total, a), b), c), d)
    else:
        total = seed + _P5
    total += np.uint64(length)
    while at + 8 <= end:
        total = _rotated(total ^ _round(np.uint64(0), load64(data, at)), 27) * _P1 + _P4
        at += 8
    if at + 4 <= end:
        total = _rotated(total ^ (np.uint64(load32(data, at)) * _P1), 23) * _P2 + _P3
        at += 4
    while at < end:
        total = _rotated(total ^ (np.uint64(data[np.uint64(at)]) * _P5), 11) * _P1
        at += 1
    return _avalanche(total)


@kernel
def _xxh64_rows(data: Bytes, starts: Ints, lengths: Ints, seed: Any, out: Hashes) -> None:
    for row in range(starts.size):
        out[row] = xxh64(data, starts[row], lengths[row], seed)


def xxh64_strings(rows: Strings, seed: int = 0) -> Hashes:
    """XXH64 of each row's bytes.

    >>> [hex(h) for h in xxh64_strings(Strings.of([b"", b"abc"])).tolist()]
    ['0xef46db3751d8e999', '0x44bc2cf5ad770999']
    """
    out = np.empty(len(rows), np.uint64)
    _xxh64_rows(*rows.plain(), np.uint64(seed), out)
    return out


def xxh64_rows(matrix: Floats, seed: int = 0) -> Hashes:
    """XXH64 of each row of a float64 matrix, over its little-endian bytes.

    -0.0 and 0.0 differ here, as do the many NaNs: the caller makes them one where it wants so.
    """
    matrix = np.ascontiguousarray(matrix, "<f8")
    rows, width = matrix.shape[0], matrix.shape[1] * 8
    starts = np.arange(rows, dtype=np.int64) * width
    data = matrix.reshape(-1).view(np.uint8)
    return xxh64_strings(Strings(data, starts, np.full(rows, width, np.int64)), seed)


def vector_hashes(matrix: Floats) -> Ints:
    """What records carry as `feature_hash`: the upper 53 bits of XXH64 of each row, which every client can hold.

    A long above 2^53 is refused by Avro libraries whose numbers are doubles.
    """
    return (xxh64_rows(matrix) >> np.uint64(11)).view(np.int64)


@kernel
def _times(a: Any, b: Any) -> Any:
    # Numba widens 32-bit products to 64 bits; murmur2 wants them cut.
    return np.uint32(a * b)


@kernel
def _murmur2(data: Bytes, begin: int, length: int) -> Any:
    h = np.uint32(_M2_SEED ^ np.uint32(length))
    at = begin
    end = begin + length
    while at + 4 <= end:
        k = _times(load32(data, at), _M2)
        k = _times(k ^ (k >> np.uint32(24)), _M2)
        h = np.uint32(_times(h, _M2) ^ k)
        at += 4
    left = end - at
    if left >= 3:
        h = np.uint32(h ^ (np.uint32(data[at + 2]) << np.uint32(16)))
    if left >= 2:
        h = np.uint32(h ^ (np.uint32(data[at + 1]) << np.uint32(8)))
    if left >= 1:
        h = _times(h ^ np.uint32(data[at]), _M2)
    h = _times(h ^ (h >> np.uint32(13)), _M2)
    return np.uint32(h ^ (h >> np.uint32(15)))


@kernel
def _murmur2_rows(data: Bytes, starts: Ints, lengths: Ints, out: Murmurs) -> None:
    for row in range(starts.size):
        out[row] = _murmur2(data, starts[row], lengths[row])


def murmur2_strings(rows: Strings) -> Murmurs:
    """Kafka's murmur2 of each row's bytes, as uint32 (Java's `int` has the same bits)."""
    out = np.empty(len(rows), np.uint32)
    _murmur2_rows(*rows.plain(), out)
    return out


def partition_of(keys: Strings, partitions: int) -> Partitions:
    """The partition to which Kafka's Java client sends each key (murmur2, made positive, modulo).

    >>> partition_of(Strings.of([b"21", b"foobar"]), 1000).tolist()
    [340, 166]
    """
    if partitions < 1:
        raise ValueError(f"a topic has at least one partition, not {partitions}")
    return ((murmur2_strings(keys) & np.uint32(0x7FFFFFFF)) % np.uint32(partitions)).astype(np.int32)
