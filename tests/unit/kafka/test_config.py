"""Settings become the client properties that librdkafka and the registry client know."""

from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from pydantic import SecretStr

from shared.errors import Refused
from shared.kafka.config import client_config, registry_config
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
    assert client_config(settings) == expected


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


def test_registry_properties() -> None:
    settings = RegistrySettings(
        url="https://r/x", username="u", password=SecretStr("p"), ssl_ca_location=Path("ca.pem")
    )
    assert registry_config(settings) == {
        "url": "https://r/x",
        "basic.auth.user.info": "u:p",
        "ssl.ca.location": "ca.pem",
    }
    assert registry_config(RegistrySettings(url="http://r")) == {"url": "http://r"}
    with pytest.raises(Refused, match="half set"):
        registry_config(RegistrySettings(username="u"))
