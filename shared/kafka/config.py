"""Settings to client properties: pure functions, the same for the embedded stack and a secured cluster."""

import ssl
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from shared.errors import Refused
from shared.settings import KafkaSettings, RegistrySettings

LARGEST_BYTES = 4_194_304
"""Largest record on Millrace's own topics: the largest that a broker takes from others (1 MiB), its copy in a
dead letter, and room for what is written around it."""


def client_config(settings: KafkaSettings) -> dict[str, Any]:
    """librdkafka's connection properties, common to producers, consumers and the admin client.

    Raises `Refused` when the protocol asks for credentials that are not set.
    """
    config: dict[str, Any] = {
        "bootstrap.servers": settings.bootstrap_servers,
        "security.protocol": settings.security_protocol,
        # Warnings and errors; librdkafka's news (a queue purged at the end, say) say nothing to anybody here.
        "log_level": 4,
    }
    if settings.security_protocol.startswith("SASL"):
        config |= _sasl(settings)
    if settings.security_protocol.endswith("SSL"):
        config |= _tls(settings)
    return config


def registry_options(settings: RegistrySettings) -> dict[str, Any]:
    """The arguments of an `httpx.Client` that speaks to the registry.

    Raises `Refused` when only one of name and password is set, or when the authorities' file cannot be read.
    """
    # A proxy from the environment must not stand between this machine and itself.
    options: dict[str, Any] = {"base_url": settings.url, "trust_env": not _is_local(settings.url)}
    if (settings.username is None) != (settings.password is None):
        raise Refused("registry credentials are half set; set both username and password, or neither")
    if settings.username is not None and settings.password is not None:
        options["auth"] = (settings.username, settings.password.get_secret_value())
    if settings.ssl_ca_location is not None:
        try:
            options["verify"] = ssl.create_default_context(cafile=settings.ssl_ca_location)
        except OSError as error:
            raise Refused(
                f"cannot read authorities from {settings.ssl_ca_location}: {error.strerror or error};"
                " set MILLRACE_REGISTRY__SSL_CA_LOCATION to a PEM file"
            ) from error
    return options


def _is_local(url: str) -> bool:
    """Whether the address is this machine's loopback."""
    return urlsplit(url).hostname in {"127.0.0.1", "localhost", "::1"}


def _sasl(settings: KafkaSettings) -> dict[str, Any]:
    """SASL's three properties, all needed."""
    needed = {
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_username": settings.sasl_username,
        "sasl_password": settings.sasl_password,
    }
    missing = [name for name, value in needed.items() if not value]
    if missing:
        variables = ", ".join(f"MILLRACE_KAFKA__{name.upper()}" for name in missing)
        raise Refused(f"{settings.security_protocol} needs credentials; set {variables}")
    return {name.replace("_", "."): _plain(value) for name, value in needed.items()}


def _tls(settings: KafkaSettings) -> dict[str, Any]:
    """The TLS properties that are set; without an authority the system's are trusted."""
    if (settings.ssl_certificate_location is None) != (settings.ssl_key_location is None):
        raise Refused(
            "the client certificate is half set; set both MILLRACE_KAFKA__SSL_CERTIFICATE_LOCATION"
            " and MILLRACE_KAFKA__SSL_KEY_LOCATION, or neither"
        )
    given = {
        "ssl.ca.location": settings.ssl_ca_location,
        "ssl.certificate.location": settings.ssl_certificate_location,
        "ssl.key.location": settings.ssl_key_location,
        "ssl.key.password": settings.ssl_key_password,
    }
    return {name: _plain(value) for name, value in given.items() if value is not None}


def _plain(value: object) -> str:
    """A property's text, secrets opened: only client constructors may see it."""
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
