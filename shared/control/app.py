"""A Faust app from Millrace's settings: at least once, one record after another, committed records only."""

import logging
import ssl
from pathlib import Path

import faust
from faust.types.auth import CredentialsT
from yarl import URL

from shared.control.driver import CommittedTransport
from shared.errors import Refused
from shared.kafka.config import LARGEST_BYTES, client_config
from shared.settings import KafkaSettings

COMMIT_INTERVAL_S = 0.1
# A handler may train for hours; heartbeats come from a thread of their own.
MAX_POLL_INTERVAL_S = 86_400.0


def make_app(
    settings: KafkaSettings,
    group: str,
    slot: int,
    folder: Path,
    session_s: float = 10.0,
    transport: type[faust.transport.drivers.aiokafka.Transport] = CommittedTransport,
) -> faust.App:
    """The app of consumer group `group`; call it inside the running loop.

    It makes no topic, serves no web page and keeps what it must on disk below `folder`. `slot` makes the group's
    member static: after a kill the same slot goes on at once, another one after `session_s`.

    Raises:
        Refused: the settings ask for credentials that are not set, or files that cannot be read.
    """
    client_config(settings)
    quiet()
    folder.mkdir(parents=True, exist_ok=True)
    urls = [URL(f"kafka://{host.strip()}") for host in settings.bootstrap_servers.split(",")]
    app = faust.App(
        group,
        broker=urls,
        broker_credentials=credentials(settings),
        broker_client_id=f"{group}-{slot}",
        consumer_group_instance_id=f"{slot:04d}",
        processing_guarantee="at_least_once",
        broker_commit_interval=COMMIT_INTERVAL_S,
        broker_session_timeout=session_s,
        broker_heartbeat_interval=min(1.0, session_s / 3.0),
        broker_request_timeout=30.0,
        broker_rebalance_timeout=30.0,
        broker_max_poll_interval=MAX_POLL_INTERVAL_S,
        broker_max_poll_records=2_000,
        consumer_max_fetch_size=2 * LARGEST_BYTES,
        consumer_auto_offset_reset="earliest",
        stream_wait_empty=False,
        stream_buffer_maxsize=8_192,
        topic_allow_declare=False,
        topic_disable_leader=True,
        store="memory://",
        datadir=folder,
        key_serializer="raw",
        value_serializer="raw",
        web_enabled=False,
        autodiscover=False,
    )
    app.transport = transport(urls, app)
    return app


def credentials(settings: KafkaSettings) -> CredentialsT | None:
    """What Faust's client says of itself to the broker; None for an open one."""
    context = _tls(settings) if settings.security_protocol.endswith("SSL") else None
    if settings.security_protocol.startswith("SASL"):
        secret = settings.sasl_password
        return faust.SASLCredentials(
            username=settings.sasl_username,
            password=secret.get_secret_value() if secret is not None else None,
            mechanism=settings.sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None


def _tls(settings: KafkaSettings) -> ssl.SSLContext:
    files = [settings.ssl_ca_location, settings.ssl_certificate_location, settings.ssl_key_location]
    secret = settings.ssl_key_password
    try:
        context = ssl.create_default_context(cafile=settings.ssl_ca_location)
        if settings.ssl_certificate_location is not None:
            password = secret.get_secret_value() if secret is not None else None
            context.load_cert_chain(settings.ssl_certificate_location, settings.ssl_key_location, password)
    except (OSError, ssl.SSLError) as error:
        named = ", ".join(str(file) for file in files if file is not None)
        raise Refused(f"cannot read {named}: {error.strerror or error}; give PEM files") from error
    return context


def quiet() -> None:
    """Let Faust and its client say errors only; what Millrace must say it says by exit codes and health."""
    for name in ("faust", "mode", "aiokafka", "kafka", "asyncio"):
        logging.getLogger(name).setLevel(logging.ERROR)
