"""Our hashes are the published ones, bit for bit."""

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.codec.batch import Strings
from shared.codec.hashing import murmur2_strings, partition_of, xxh64_rows, xxh64_strings

# The first example compiles a kernel.
patient = settings(deadline=None)


@patient
@given(st.lists(st.binary(max_size=120), max_size=20), st.integers(0, 2**64 - 1))
def test_xxh64_equals_the_xxhash_package(rows: list[bytes], seed: int) -> None:
    expected = [xxhash.xxh64_intdigest(row, seed) for row in rows]
    assert xxh64_strings(Strings.of(rows), seed).tolist() == expected


@pytest.mark.parametrize("width", [1, 3, 4, 14, 33])
def test_xxh64_of_matrix_rows_equals_the_package_over_their_bytes(width: int) -> None:
    matrix = np.random.default_rng(5).normal(size=(7, width))
    assert xxh64_rows(matrix).tolist() == [xxhash.xxh64_intdigest(row.tobytes()) for row in matrix]


def test_rows_of_nothing_hash_alike() -> None:
    assert xxh64_rows(np.empty((2, 0))).tolist() == [xxhash.xxh64_intdigest(b"")] * 2


# The values that Kafka's own test of its murmur2 expects from the Java implementation.
JAVA_MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


def test_murmur2_equals_java() -> None:
    rows = Strings.of(list(JAVA_MURMUR2))
    assert murmur2_strings(rows).view(np.int32).tolist() == list(JAVA_MURMUR2.values())


def plain_murmur2(data: bytes) -> int:
    """Written once more, one byte at a time and in unbounded integers."""
    h = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * 0x5BD1E995 & 0xFFFFFFFF
        k = (k ^ k >> 24) * 0x5BD1E995 & 0xFFFFFFFF
        h = (h * 0x5BD1E995 & 0xFFFFFFFF) ^ k
    if data[whole:]:
        h = (h ^ int.from_bytes(data[whole:], "little")) * 0x5BD1E995 & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0x5BD1E995 & 0xFFFFFFFF
    return h ^ h >> 15


@patient
@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(1, 1000))
def test_partitions_are_murmur2_made_positive(rows: list[bytes], partitions: int) -> None:
    expected = [(plain_murmur2(row) & 0x7FFFFFFF) % partitions for row in rows]
    assert partition_of(Strings.of(rows), partitions).tolist() == expected


def test_no_partitions_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one partition"):
        partition_of(Strings.of([b"x"]), 0)
