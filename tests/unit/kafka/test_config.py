"""Settings become the client properties that librdkafka and the registry client know."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from pydantic import SecretStr

from shared.errors import Refused
from shared.kafka.config import client_config, registry_options
from shared.settings import KafkaSettings, RegistrySettings


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            KafkaSettings(bootstrap_servers="a:1,b:2"),
            {"bootstrap.servers": "a:1,b:2", "security.protocol": "PLAINTEXT"},
        ),
        (
            KafkaSettings(
                bootstrap_servers="a:1",
                security_protocol="SASL_SSL",
                sasl_mechanism="SCRAM-SHA-512",
                sasl_username="u",
                sasl_password=SecretStr("p"),
                ssl_ca_location=Path("ca.pem"),
            ),
            {
                "bootstrap.servers": "a:1",
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": "u",
                "sasl.password": "p",
                "ssl.ca.location": "ca.pem",
            },
        ),
        (
            KafkaSettings(
                bootstrap_servers="a:1",
                security_protocol="SSL",
                ssl_certificate_location=Path("c.pem"),
                ssl_key_location=Path("k.pem"),
                ssl_key_password=SecretStr("s"),
            ),
            {
                "bootstrap.servers": "a:1",
                "security.protocol": "SSL",
                "ssl.certificate.location": "c.pem",
                "ssl.key.location": "k.pem",
                "ssl.key.password": "s",
            },
        ),
    ],
)
def test_client_properties(settings: KafkaSettings, expected: dict[str, Any]) -> None:
    assert client_config(settings) == {**expected, "log_level": 4}


def test_librdkafka_knows_every_sasl_property() -> None:
    settings = KafkaSettings(
        bootstrap_servers="127.0.0.1:1",
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_username="u",
        sasl_password=SecretStr("p"),
    )
    Producer({**client_config(settings), "log_level": 0})


def test_missing_credentials_are_named() -> None:
    with pytest.raises(Refused, match="MILLRACE_KAFKA__SASL_USERNAME, MILLRACE_KAFKA__SASL_PASSWORD"):
        client_config(KafkaSettings(security_protocol="SASL_SSL", sasl_mechanism="PLAIN"))


def test_half_a_certificate_is_refused() -> None:
    with pytest.raises(Refused, match="half set"):
        client_config(KafkaSettings(security_protocol="SSL", ssl_certificate_location=Path("c.pem")))


def test_registry_options() -> None:
    settings = RegistrySettings(url="https://r/x", username="u", password=SecretStr("p"))
    assert registry_options(settings) == {"base_url": "https://r/x", "auth": ("u", "p"), "trust_env": True}
    with pytest.raises(Refused, match="half set"):
        registry_options(RegistrySettings(username="u"))


def test_no_proxy_stands_before_the_own_machine() -> None:
    assert registry_options(RegistrySettings(url="http://127.0.0.1:1/x"))["trust_env"] is False


def test_own_authorities_are_trusted(tmp_path: Path) -> None:
    import certifi

    options = registry_options(RegistrySettings(ssl_ca_location=Path(certifi.where())))
    assert options["verify"].verify_mode is ssl.CERT_REQUIRED
    with pytest.raises(Refused, match="cannot read authorities"):
        registry_options(RegistrySettings(ssl_ca_location=tmp_path / "absent.pem"))
