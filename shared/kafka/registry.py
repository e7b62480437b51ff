"""The schema registry through Confluent's REST API: the few calls that Millrace needs.

What a caller must tell apart: an id that nobody knows (None: the data is wrong), a registry that is away
(Retry: nothing is known about the data), and a schema that the registry refuses (Refused, with its reasons).
"""

import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Protocol, Self

import httpx

from shared.contracts.compat import Level, obstacles
from shared.contracts.pipeline import Pipeline
from shared.contracts.subjects import subjects_of
from shared.errors import Refused, Retry
from shared.settings import RegistrySettings

Schema = dict[str, Any]

MISS_TTL_S: Final = 60.0
"""How long an unknown id is remembered: hostile ids must not become a request each."""
_MAX_MISSES: Final = 10_000
_TIMEOUT: Final = httpx.Timeout(10.0, connect=3.0)
_UNKNOWN: Final = frozenset({40401, 40402, 40403})
_AWAY: Final = frozenset({408, 429, 500, 502, 503, 504})


class SchemaRegistry(Protocol):
    """What services need of a registry."""

    def register(self, subject: str, schema: Mapping[str, Any]) -> int:
        """The id of `schema` under `subject`, registered if new; Refused with the registry's reasons."""
        ...

    def schema_of(self, schema_id: int) -> Schema | None:
        """The Avro schema with this id; None if nobody knows it or if it is not Avro."""
        ...

    def ids_of(self, subject: str) -> dict[int, Schema]:
        """Every version of a subject, oldest first, by id; empty for an unknown subject."""
        ...

    def check(self, subject: str, schema: Mapping[str, Any]) -> list[str]:
        """Why the registry would refuse `schema`; empty when it would take it."""
        ...

    def set_compatibility(self, subject: str, level: Level) -> None:
        """How the subject may change from now on."""
        ...


class Registry:
    """A registry behind an address; answers about ids are kept, for ever or 60 s for an unknown one.

    Every call raises Retry while the registry cannot be reached or fails, Refused when it says no.
    """

    def __init__(self, settings: RegistrySettings, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives monotonic seconds, for forgetting unknown ids."""
        auth = None
        if settings.username is not None:
            password = settings.password.get_secret_value() if settings.password else ""
            auth = httpx.BasicAuth(settings.username, password)
        verify = (
            ssl.create_default_context(cafile=settings.ssl_ca_location) if settings.ssl_ca_location else True
        )
        self._url = settings.url.rstrip("/")
        self._http = httpx.Client(
            base_url=self._url, auth=auth, verify=verify, timeout=_TIMEOUT, trust_env=False
        )
        self._clock = clock
        self._known: dict[int, Schema] = {}
        self._misses: dict[int, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    def register(self, subject: str, schema: Mapping[str, Any]) -> int:
        """The id of `schema` under `subject`, registered if new; Refused with the registry's reasons."""
        answer = self._call("POST", f"/subjects/{subject}/versions", _body(schema))
        if answer is None:
            raise Refused(f"the registry at {self._url} knows no subject {subject}")
        schema_id = int(answer["id"])
        self._misses.pop(schema_id, None)
        return schema_id

    def schema_of(self, schema_id: int) -> Schema | None:
        """The Avro schema with this id; None if nobody knows it or if it is not Avro."""
        known = self._known.get(schema_id)
        if known is not None:
            return known
        missed = self._misses.get(schema_id)
        if missed is not None and self._clock() - missed < MISS_TTL_S:
            return None
        answer = self._call("GET", f"/schemas/ids/{schema_id}")
        schema = _avro(answer) if answer is not None else None
        if schema is None:
            self._miss(schema_id)
            return None
        self._misses.pop(schema_id, None)
        self._known[schema_id] = schema
        return schema

    def ids_of(self, subject: str) -> dict[int, Schema]:
        """Every version of a subject, oldest first, by id; empty for an unknown subject."""
        found: dict[int, Schema] = {}
        for version in self._call("GET", f"/subjects/{subject}/versions") or []:
            answer = self._call("GET", f"/subjects/{subject}/versions/{version}")
            schema = _avro(answer) if answer is not None else None
            if answer is not None and schema is not None:
                found[int(answer["id"])] = schema
        return found

    def check(self, subject: str, schema: Mapping[str, Any]) -> list[str]:
        """Why the registry would refuse `schema`; empty when it would take it."""
        path = f"/compatibility/subjects/{subject}/versions?verbose=true"
        try:
            answer = self._call("POST", path, _body(schema))
        except Refused as error:
            return [str(error)]
        if answer is None or answer["is_compatible"]:
            return []
        reasons = [str(reason) for reason in answer.get("messages") or ()]
        if reasons:
            return reasons
        return _own_reasons(schema, self.ids_of(subject)) or ["the registry calls it incompatible"]

    def set_compatibility(self, subject: str, level: Level) -> None:
        """How the subject may change from now on."""
        try:
            self._call("PUT", f"/config/{subject}", {"compatibility": level})
        except Refused:
            # Apicurio makes a subject's first rule without looking twice: of two who come at once one is refused.
            self._call("PUT", f"/config/{subject}", {"compatibility": level})

    def _miss(self, schema_id: int) -> None:
        if len(self._misses) >= _MAX_MISSES:
            self._misses.clear()
        self._misses[schema_id] = self._clock()

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer's JSON; None where the registry says that it knows no such subject, version or id."""
        with self._reaching():
            answer = self._http.request(method, path, json=body)
        if answer.is_success:
            return self._json(answer)
        if answer.status_code in _AWAY:
            raise Retry(
                f"the registry at {self._url} answers {answer.status_code}; is it starting or overloaded?"
            )
        if answer.status_code in (401, 403):
            raise Refused(
                f"the registry at {self._url} answers {answer.status_code}; "
                "set MILLRACE_REGISTRY__USERNAME and MILLRACE_REGISTRY__PASSWORD"
            )
        told = self._json(answer)
        code = told.get("error_code") if isinstance(told, dict) else None
        if answer.status_code == 404 and code in _UNKNOWN:
            return None
        if answer.status_code == 404 and code is None:
            raise self._wrong_address()
        reasons = told.get("message", "no reason given") if isinstance(told, dict) else told
        raise Refused(f"the registry refuses {path}: {reasons}")

    def _json(self, answer: httpx.Response) -> Any:
        if answer.status_code == 404 and not answer.content:
            raise self._wrong_address()
        try:
            return answer.json()
        except ValueError as error:
            raise self._wrong_address() from error

    def _wrong_address(self) -> Refused:
        return Refused(
            f"{self._url} does not speak a schema registry's REST API; "
            "set MILLRACE_REGISTRY__URL to its base address, path included"
        )

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            kind = type(error).__name__
            raise Retry(
                f"the registry at {self._url} cannot be reached ({kind}: {error}); is it running?"
            ) from error


def register_pipeline(registry: SchemaRegistry, pipeline: Pipeline) -> dict[str, int]:
    """Register the schema of each of the pipeline's topics; the ids by topic name. Idempotent.

    Subjects are `<topic>-value`; events, labels and what is generated may change BACKWARD_TRANSITIVE, the
    platform's own schemas FULL_TRANSITIVE.

    Raises:
        Refused: a schema is incompatible with an earlier version.
        Retry: the registry is away.
    """
    ids: dict[str, int] = {}
    for subject in subjects_of(pipeline):
        registry.set_compatibility(subject.name, subject.level)
        ids[subject.topic] = registry.register(subject.name, subject.schema)
    return ids


def _body(schema: Mapping[str, Any]) -> dict[str, str]:
    return {"schema": json.dumps(schema, separators=(",", ":"))}


def _avro(answer: Mapping[str, Any]) -> Schema | None:
    """The schema in an answer, None if it is of another language or leans on schemas elsewhere."""
    if answer.get("schemaType", "AVRO") != "AVRO" or answer.get("references"):
        return None
    try:
        schema = json.loads(answer["schema"])
    except (ValueError, RecursionError):
        return None
    return schema if isinstance(schema, dict) else {"type": schema}


def _own_reasons(schema: Mapping[str, Any], versions: Mapping[int, Schema]) -> list[str]:
    return [
        f"cannot read data of schema {schema_id}: {obstacle.message}; {obstacle.fix}"
        for schema_id, old in versions.items()
        for obstacle in obstacles(schema, old)
    ]
