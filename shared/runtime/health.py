"""What one worker tells about itself over HTTP: `/livez`, `/readyz` and `/metrics`."""

import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

# A loop that has not come round for this long is stuck: longer than any batch, recovery excepted.
STUCK_S = 60.0


@dataclass(slots=True)
class Health:
    """The loop's word on itself; `beat` is called at every turn."""

    ready: bool = False
    detail: str = "starting"
    last_beat: float = field(default_factory=time.monotonic)

    def beat(self) -> None:
        """The loop has come round."""
        self.last_beat = time.monotonic()

    @property
    def live(self) -> bool:
        """Whether the loop came round lately."""
        return time.monotonic() - self.last_beat < STUCK_S


def serve(health: Health, registry: CollectorRegistry, host: str, port: int) -> ThreadingHTTPServer:
    """Answer health questions in a thread; port 0 takes a free one (`server.server_port` tells)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            routes: dict[str, Callable[[], tuple[int, bytes]]] = {
                "/livez": lambda: _word(health.live, health.detail),
                "/readyz": lambda: _word(health.ready, health.detail),
                "/metrics": lambda: (200, generate_latest(registry)),
            }
            status, body = routes.get(self.path, lambda: (404, b"unknown path"))()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Probes come every few seconds; they are not news."""

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server


def _word(good: bool, detail: str) -> tuple[int, bytes]:
    return 200 if good else 503, json.dumps({"ok": good, "detail": detail}).encode()


def sample(registry: CollectorRegistry, names: Iterable[str]) -> list[tuple[str, dict[str, str], float]]:
    """The current samples of the named metrics: (name, labels, value)."""
    wanted = set(names)
    return [
        (s.name, dict(s.labels), float(s.value))
        for metric in registry.collect()
        for s in metric.samples
        if not wanted or metric.name in wanted
    ]
