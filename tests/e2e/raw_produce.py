"""Record batches that no client would send, written byte by byte and handed to the broker over its own protocol.

Only what the tests need of Kafka's protocol: Produce version 7 (the first that takes zstd) to one partition,
without compression of our own, acknowledged by the broker.
"""

import socket
import struct

PRODUCE, PRODUCE_VERSION = 0, 7
PLAIN, ZSTD = 0, 4
TIMEOUT_S = 60.0
_BLOCK = 128 << 10
_POLYNOMIAL = 0x82F63B78


def _table() -> list[int]:
    rows = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        rows.append(value)
    return rows


_CRC = _table()


def crc32c(data: bytes) -> int:
    """Castagnoli's checksum, as in the header of a record batch.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def varint(number: int) -> bytes:
    """Zigzag, as in Kafka's records.

    >>> varint(-1), varint(300)
    (b'\\x01', b'\\xd8\\x04')
    """
    left = (number << 1) ^ (number >> 63)
    out = bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


def record(key: bytes, value: bytes, offset: int) -> bytes:
    """One record of a batch, `offset` from its first."""
    body = (
        b"\0" + varint(0) + varint(offset) + varint(len(key)) + key + varint(len(value)) + value + varint(0)
    )
    return varint(len(body)) + body


def bomb(key: bytes, zeros: int, records: int) -> bytes:
    """A zstd frame of so many records, the last of which has a value of `zeros` zeros: 4 bytes every 128 KiB."""
    small = b"".join(record(key, b"x", offset) for offset in range(records - 1))
    head = b"\0" + varint(0) + varint(records - 1) + varint(len(key)) + key + varint(zeros)
    begin, end = small + varint(len(head) + zeros + 1) + head, varint(0)
    # No content size, a window of 128 KiB.
    frame = bytearray(b"\x28\xb5\x2f\xfd\x00" + bytes([7 << 3]))
    frame += _block(0, len(begin), False) + begin
    for at in range(0, zeros, _BLOCK):
        frame += _block(1, min(zeros - at, _BLOCK), False) + b"\0"
    return bytes(frame + _block(0, len(end), True) + end)


def _block(kind: int, size: int, last: bool) -> bytes:
    """A zstd block header: raw (0) or a run of one byte (1)."""
    return ((size << 3) | (kind << 1) | last).to_bytes(3, "little")


def record_batch(payload: bytes, records: int, timestamp_ms: int, codec: int) -> bytes:
    """A batch, version 2, of `records` records; `payload` is what stands behind its header, as `codec` says."""
    checked = struct.pack(">hiqqqhii", codec, records - 1, timestamp_ms, timestamp_ms, -1, -1, -1, records)
    counted = struct.pack(">ib", -1, 2)
    crc = crc32c(checked + payload)
    body = counted + struct.pack(">I", crc) + checked + payload
    return struct.pack(">qi", 0, len(body)) + body


def produce(address: str, topic: str, partition: int, batch: bytes) -> int:
    """Send one batch to the broker at `host:port`; the offset that its first record got.

    Raises:
        RuntimeError: the broker refused it; the message is its error code.
    """
    name = topic.encode()
    body = struct.pack(">hhi", -1, -1, 30_000) + struct.pack(">i", 1)
    body += struct.pack(">h", len(name)) + name + struct.pack(">i", 1)
    body += struct.pack(">ii", partition, len(batch)) + batch
    client = b"raw"
    header = struct.pack(">hhih", PRODUCE, PRODUCE_VERSION, 1, len(client)) + client
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as link:
        link.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
        size = struct.unpack(">i", read_exactly(link, 4))[0]
        answer = read_exactly(link, size)
    # correlation id, count of topics, name, count of partitions, then partition, error, offset
    at = 4 + 4 + 2 + len(name) + 4
    _, error, offset = struct.unpack_from(">ihq", answer, at)
    if error:
        raise RuntimeError(f"the broker refused the batch with error {error}")
    return int(offset)


def read_exactly(link: socket.socket, size: int) -> bytes:
    """The next `size` bytes; ConnectionError where the other side hangs up before."""
    data = b""
    while len(data) < size:
        more = link.recv(size - len(data))
        if not more:
            raise ConnectionError("the other side hung up")
        data += more
    return data
