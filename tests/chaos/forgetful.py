"""A broker that has just started and has forgotten who wrote to it.

It speaks as much of Kafka's protocol as a producer needs: ApiVersions 0, Metadata 1, InitProducerId 0, Produce 3.
It refuses the first request of records as a broker does that is not yet the partition's leader, but only after
the next one has come in or `patience_s` is over; then it takes everything, whatever its sequence number: what
Kafka does where a producer's state has expired.
"""

import contextlib
import select
import socket
import struct
import threading
import time
from collections import defaultdict
from types import TracebackType
from typing import Self

from tests.e2e.raw_produce import read_exactly

PRODUCE, METADATA, API_VERSIONS, INIT_PRODUCER_ID = 0, 3, 18, 22
# Fetch is not spoken, but tells the client that records are of the newest format.
SPOKEN = {PRODUCE: 3, 1: 4, METADATA: 1, API_VERSIONS: 0, INIT_PRODUCER_ID: 0}
PARTITIONS = 4
NOT_LEADER, UNSUPPORTED_VERSION = 6, 35
BASE_SEQUENCE, COUNT = 53, 57


class ForgetfulBroker:
    """Listens on a port of its own; `kept` are the sequence numbers written, by topic, in the log's order.

    It does not tell partitions apart: write to one of a topic.

    Args:
        patience_s: how long the first request of records to `refusing` waits for one behind it.
        refusing: the topic whose first request is refused; none if empty.
        deaf_after: so many requests of records are answered, and no more.
    """

    def __init__(self, patience_s: float = 0.0, refusing: str = "", deaf_after: int = 2**31) -> None:
        self.kept: dict[str, list[int]] = defaultdict(list)
        self.passed = False
        """Whether a request came in behind the refused one before that was answered."""
        self._patience_s, self._refusing, self._left = patience_s, refusing, deaf_after
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._links: list[tuple[socket.socket, threading.Thread]] = []

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self._port}"

    @property
    def _port(self) -> int:
        return int(self._listening.getsockname()[1])

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._listening:
            self._listening.shutdown(socket.SHUT_RDWR)
            self._accepting.join()
        for link, serving in self._links:
            with contextlib.suppress(OSError):  # The client may have left before.
                link.shutdown(socket.SHUT_RDWR)
            serving.join()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listening.accept()
            except OSError:
                return
            serving = threading.Thread(target=self._serve, args=(link,), daemon=True)
            self._links.append((link, serving))
            serving.start()

    def _serve(self, link: socket.socket) -> None:
        """Answer one connection's requests in their order, until it ends."""
        waiting: list[bytes] = []
        with link, contextlib.suppress(OSError):
            while True:
                request = waiting.pop(0) if waiting else _receive(link)
                kind, version, number = struct.unpack_from(">hhi", request)
                if kind == PRODUCE:
                    answer = self._produce(link, request, waiting)
                else:
                    answer = self._answer(kind, version, request)
                if answer:
                    link.sendall(struct.pack(">ii", len(answer) + 4, number) + answer)

    def _answer(self, kind: int, version: int, request: bytes) -> bytes:
        if kind == API_VERSIONS:
            error = UNSUPPORTED_VERSION if version > 0 else 0
            spoken = b"".join(struct.pack(">hhh", api, newest, newest) for api, newest in SPOKEN.items())
            return struct.pack(">hi", error, len(SPOKEN)) + spoken
        if kind == INIT_PRODUCER_ID:
            return struct.pack(">ihqh", 0, 0, 7, 0)
        body = request[8 + _text_bytes(request, 8) :]
        (count,) = struct.unpack_from(">i", body)
        at, topics = 4, []
        for _ in range(count):
            size = _text_bytes(body, at)
            topics.append(body[at : at + size])
            at += size
        # One broker, number 1, which leads every partition of each topic.
        broker = struct.pack(">ii", 1, 1) + _text("127.0.0.1") + struct.pack(">ih", self._port, -1)
        led = b"".join(struct.pack(">hiiiiii", 0, place, 1, 1, 1, 1, 1) for place in range(PARTITIONS))
        found = b"".join(
            struct.pack(">h", 0) + name + b"\0" + struct.pack(">i", PARTITIONS) + led for name in topics
        )
        return broker + struct.pack(">ii", 1, len(topics)) + found

    def _produce(self, link: socket.socket, request: bytes, waiting: list[bytes]) -> bytes:
        """Keep the records of one request, or refuse them; nothing if deaf."""
        if self._left <= 0:
            return b""
        self._left -= 1
        at = 8 + _text_bytes(request, 8)
        # No transactional id, acknowledgements, time-out, one topic.
        at += 2 + 2 + 4 + 4
        size = _text_bytes(request, at)
        name = request[at + 2 : at + size].decode()
        # One partition of it, by number, and the size of its batch.
        (place,) = struct.unpack_from(">i", request, at + size + 4)
        batch = request[at + size + 4 + 4 + 4 :]
        if name == self._refusing:
            self._refusing = ""
            self._await_another(link, waiting)
            return _produced(name, place, NOT_LEADER, -1)
        first, count = struct.unpack_from(">ii", batch, BASE_SEQUENCE)
        kept = self.kept[name]
        kept += range(first, first + count)
        return _produced(name, place, 0, len(kept) - count)

    def _await_another(self, link: socket.socket, waiting: list[bytes]) -> None:
        """Take in what comes until that is a request of records or patience is over."""
        deadline = time.monotonic() + self._patience_s
        while not self.passed and select.select([link], [], [], max(0.0, deadline - time.monotonic()))[0]:
            waiting.append(_receive(link))
            self.passed = struct.unpack_from(">h", waiting[-1])[0] == PRODUCE


def _produced(name: str, place: int, error: int, offset: int) -> bytes:
    return struct.pack(">i", 1) + _text(name) + struct.pack(">iihqqi", 1, place, error, offset, -1, 0)


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _text_bytes(data: bytes, at: int) -> int:
    """How long a text with its length before it is."""
    return 2 + max(0, int(struct.unpack_from(">h", data, at)[0]))


def _receive(link: socket.socket) -> bytes:
    """One request, whole."""
    return read_exactly(link, int(struct.unpack(">i", read_exactly(link, 4))[0]))
