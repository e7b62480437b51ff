"""Where broker, registry, Redis and stores are: the environment first, then the embedded stack's file.

Every variable starts with `MILLRACE_`; `__` goes one level down, as in `MILLRACE_KAFKA__REPLICATION_FACTOR`.
`millrace up` writes its addresses to `$MILLRACE_HOME/endpoints.json`; a variable wins over that file.
"""

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from shared.errors import Refused


def home() -> Path:
    """The data folder: `$MILLRACE_HOME`, by default `.millrace` in the current folder."""
    return Path(os.environ.get("MILLRACE_HOME", ".millrace")).absolute()


class Settings(BaseSettings):
    """What a process is told by its environment; Refused where a variable's value will not do, by its name."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise Refused(
                "; ".join(self._told(each["loc"], each["msg"]) for each in error.errors())
            ) from None
        except SettingsError as error:
            raise Refused(f"{error}; see {type(self).__name__}") from error

    def _told(self, place: tuple[int | str, ...], wrong: str) -> str:
        """One mistake; never the value, which may be a password."""
        name = "__".join(str(part) for part in place).upper()
        return f"{self.model_config.get('env_prefix', '')}{name}: {wrong}"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSettings(_Section):
    """How to reach the Kafka cluster."""

    bootstrap_servers: str = "127.0.0.1:9092"
    """`host:port`, several separated by commas."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """As in Kafka's own clients."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """Needed with SASL_PLAINTEXT and SASL_SSL."""
    sasl_username: str | None = None
    """The principal's name."""
    sasl_password: SecretStr | None = None
    """The principal's password."""
    ssl_ca_location: Path | None = None
    """PEM file of the authorities to trust; the system's by default."""
    ssl_certificate_location: Path | None = None
    """PEM file of the client's certificate, for mutual TLS."""
    ssl_key_location: Path | None = None
    """PEM file of the client's key, for mutual TLS."""
    ssl_key_password: SecretStr | None = None
    """The key's password."""
    replication_factor: int = 1
    """Copies of each topic that Millrace creates; 3 on a real cluster."""


class RegistrySettings(_Section):
    """How to reach the schema registry (Confluent's REST API)."""

    url: str = "http://127.0.0.1:8081"
    """The base address, with the path under which the registry speaks Confluent's API."""
    username: str | None = None
    """For basic authentication."""
    password: SecretStr | None = None
    """For basic authentication."""
    ssl_ca_location: Path | None = None
    """PEM file of the authorities to trust."""


class RedisSettings(_Section):
    """How to reach Redis, the view of the newest features."""

    url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """`redis://`, `rediss://` or `unix://` address; secret since it can carry a password."""


class StoreSettings(_Section):
    """Where artefacts and snapshots live; fsspec addresses, or folders below the home when empty."""

    artefacts: str = ""
    """Model artefacts, by content address."""
    snapshots: str = ""
    """State snapshots; shared by all workers of a service, so that a partition can move."""


class _Endpoints(PydanticBaseSettingsSource):
    """The embedded stack's addresses, as `millrace up` wrote them."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._all().get(field_name), field_name, True

    def __call__(self) -> dict[str, Any]:
        return self._all()

    def _all(self) -> dict[str, Any]:
        path = home() / "endpoints.json"
        if not path.is_file():
            return {}
        written: dict[str, Any] = json.loads(path.read_text())
        return {name: written[name] for name in ("kafka", "registry", "redis") if name in written}


class PlatformSettings(Settings):
    """What every service needs to find the platform."""

    model_config = SettingsConfigDict(
        env_prefix="MILLRACE_", env_nested_delimiter="__", frozen=True, extra="ignore"
    )

    kafka: KafkaSettings = KafkaSettings()
    """The broker."""
    registry: RegistrySettings = RegistrySettings()
    """The schema registry."""
    redis: RedisSettings = RedisSettings()
    """The view of the newest features."""
    store: StoreSettings = StoreSettings()
    """Artefacts and snapshots."""

    @property
    def artefacts_url(self) -> str:
        """The artefact store's address."""
        return self.store.artefacts or str(home() / "artefacts")

    @property
    def snapshots_url(self) -> str:
        """The snapshot store's address."""
        return self.store.snapshots or str(home() / "snapshots")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the embedded stack's file."""
        return init_settings, env_settings, _Endpoints(settings_cls)
