"""A door between a service and a server: shut, it refuses every connection, as a server that is down."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Gate:
    """Passes connections on to `host:port` while it is open; its own address is `port` on this machine."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._lock = threading.Lock()
        self._links: list[socket.socket] = []
        self._door: socket.socket | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shut()

    def open(self) -> None:
        """Listen, on the same port as before."""
        door = socket.socket()
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(("127.0.0.1", self.port))
        door.listen()
        self.port = door.getsockname()[1]
        self._door = door
        threading.Thread(target=self._accept, args=(door,), daemon=True).start()

    def shut(self) -> None:
        """Refuse new connections and cut those under way."""
        with self._lock:
            links, self._links = self._links, []
        if self._door is not None:
            # A close alone does not wake the thread that waits in accept, and the port would stay open.
            with contextlib.suppress(OSError):
                self._door.shutdown(socket.SHUT_RDWR)
            self._door.close()
        for link in links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()

    def _accept(self, door: socket.socket) -> None:
        while True:
            try:
                near, _ = door.accept()
            except OSError:
                return  # shut
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            with self._lock:
                self._links += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=_pipe, args=(one, other), daemon=True).start()


def _pipe(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes until either side ends."""
    with contextlib.suppress(OSError):
        while data := one.recv(65_536):
            other.sendall(data)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_RDWR)
