"""The registry client against a small HTTP server, and its twin in memory."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from shared.errors import Refused, Retry
from shared.kafka.registry import MISS_TTL_S, Registry, SchemaRegistry
from shared.kafka.registry_memory import MemoryRegistry
from shared.settings import RegistrySettings
from tests.unit.contracts.registry_suite import RegistrySuite

UNKNOWN = (404, {"error_code": 40403, "message": "no such schema"})


class Served:
    """A server that answers each path with what `answers` says, and counts."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[str] = []
        self.headers: list[str | None] = []
        self.url = ""
        self.now = 1000.0

    def registry(self, **settings: Any) -> Registry:
        return Registry(RegistrySettings(url=self.url, **settings), clock=lambda: self.now)


@contextmanager
def _serving() -> Iterator[Served]:
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            served.headers.append(self.headers.get("Authorization"))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = served.answers.get(self.path, UNKNOWN)
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def served() -> Iterator[Served]:
    with _serving() as server:
        yield server


def test_a_known_id_is_asked_once(served: Served) -> None:
    served.answers["/schemas/ids/7"] = (200, {"schema": '{"type": "record", "name": "R", "fields": []}'})
    with served.registry() as registry:
        for _ in range(3):
            assert registry.schema_of(7) == {"type": "record", "name": "R", "fields": []}
    assert served.asked == ["/schemas/ids/7"]


def test_an_unknown_id_is_remembered_for_a_minute(served: Served) -> None:
    with served.registry() as registry:
        assert registry.schema_of(9) is None
        served.answers["/schemas/ids/9"] = (200, {"schema": '"string"'})
        served.now += MISS_TTL_S - 1
        assert registry.schema_of(9) is None
        assert len(served.asked) == 1
        served.now += 1
        assert registry.schema_of(9) == {"type": "string"}


def test_what_is_not_avro_is_none(served: Served) -> None:
    served.answers["/schemas/ids/1"] = (200, {"schemaType": "JSON", "schema": "{}"})
    served.answers["/schemas/ids/2"] = (200, {"schema": "{}", "references": [{"name": "a"}]})
    served.answers["/schemas/ids/3"] = (200, {"schema": "not json"})
    with served.registry() as registry:
        assert [registry.schema_of(i) for i in (1, 2, 3)] == [None, None, None]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_registry_in_trouble_is_retried(served: Served, status: int) -> None:
    served.answers["/schemas/ids/1"] = (status, {"message": "wait"})
    with served.registry() as registry:
        with pytest.raises(Retry, match=str(status)):
            registry.schema_of(1)
        served.answers["/schemas/ids/1"] = (200, {"schema": '"int"'})
        assert registry.schema_of(1) == {"type": "int"}


def test_a_registry_that_is_away_is_retried() -> None:
    with _serving() as gone:
        pass
    with gone.registry() as registry, pytest.raises(Retry, match="cannot be reached"):
        registry.schema_of(1)


@pytest.mark.parametrize("answer", [(404, b""), (404, b"<html>"), (404, {"status": 404}), (200, b"<html>")])
def test_a_wrong_address_is_not_an_unknown_id(served: Served, answer: tuple[int, Any]) -> None:
    served.answers["/schemas/ids/1"] = answer
    with served.registry() as registry, pytest.raises(Refused, match="MILLRACE_REGISTRY__URL"):
        registry.schema_of(1)


@pytest.mark.parametrize("status", [401, 403])
def test_missing_credentials_are_told(served: Served, status: int) -> None:
    served.answers["/schemas/ids/1"] = (status, {})
    with served.registry() as registry, pytest.raises(Refused, match="MILLRACE_REGISTRY__USERNAME"):
        registry.schema_of(1)


def test_credentials_are_sent(served: Served) -> None:
    with served.registry(username="me", password="secret") as registry:
        assert registry.schema_of(1) is None
    assert served.headers == ["Basic bWU6c2VjcmV0"]


def test_a_refusal_carries_the_registrys_reason(served: Served) -> None:
    served.answers["/subjects/s/versions"] = (409, {"error_code": 409, "message": "field y has no default"})
    with served.registry() as registry, pytest.raises(Refused, match="field y has no default"):
        registry.register("s", {"type": "record"})


def test_the_registrys_own_messages_are_reported(served: Served) -> None:
    path = "/compatibility/subjects/s/versions?verbose=true"
    served.answers[path] = (200, {"is_compatible": False, "messages": ["a", "b"]})
    with served.registry() as registry:
        assert registry.check("s", {"type": "record"}) == ["a", "b"]


class TestMemoryRegistry(RegistrySuite):
    @pytest.fixture
    def registry(self) -> SchemaRegistry:
        return MemoryRegistry()

    @pytest.fixture
    def subject(self) -> str:
        return "suite"
