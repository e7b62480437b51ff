"""The embedded stack, up for real: idempotent, killed and found again, what it holds kept, nothing left
behind.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
import redis
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from services.stack import embedded, ports, process
from services.stack.endpoints import Endpoints

pytestmark = pytest.mark.integration
SCHEMA = json.dumps({"type": "record", "name": "A", "fields": [{"name": "x", "type": "int"}]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data folder of a stack that these tests may kill."""
    home = tmp_path_factory.mktemp("stack")
    yield home
    embedded.stop(home)


@pytest.fixture
def own(folder: Path) -> Endpoints:
    """That stack, up again whatever the test before did to it."""
    return embedded.start(folder)


def pids(home: Path) -> dict[str, int | None]:
    return {part.name: part.pid for part in embedded.status(home)}


def millrace(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.cli.main", *arguments],
        env={**os.environ, "MILLRACE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def produce(servers: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": servers, "log_level": 0, "enable.idempotence": True})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(30) == 0


def consume(servers: str, topic: str, count: int) -> list[bytes]:
    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": topic, "auto.offset.reset": "earliest", "log_level": 0}
    )
    consumer.subscribe([topic])
    found: list[bytes] = []
    deadline = time.monotonic() + 30
    while len(found) < count and time.monotonic() < deadline:
        found += [m.value() or b"" for m in consumer.consume(count, 0.5) if m.error() is None]
    consumer.close()
    return found


def test_every_port_is_on_the_loopback(own: Endpoints) -> None:
    listening = {
        connection.laddr.ip
        for handle in embedded.find_running(own.home).values()
        for connection in psutil.Process(handle.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_up_again_changes_nothing(own: Endpoints) -> None:
    before = pids(own.home)
    assert embedded.start(own.home) == own
    assert pids(own.home) == before


def test_two_starts_at_once_make_one_stack(own: Endpoints) -> None:
    embedded.stop(own.home)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: millrace(own.home, "up", "--json"), range(2)))
    assert [run.returncode for run in both] == [0, 0], both
    assert json.loads(both[0].stdout) == json.loads(both[1].stdout) == own.as_settings()
    assert len(process.find_marked(own.home, embedded.NAMES)) == 3


def test_status_and_doctor_speak_json(own: Endpoints) -> None:
    status = millrace(own.home, "status", "--json")
    assert status.returncode == 0
    assert json.loads(status.stdout)["ok"] is True
    doctor = json.loads(millrace(own.home, "doctor", "--json").stdout)
    assert [check["name"] for check in doctor["checks"] if not check["ok"]] == []


def test_all_is_kept_when_everything_is_killed(own: Endpoints) -> None:
    admin = AdminClient({"bootstrap.servers": own.bootstrap_servers, "log_level": 0})
    admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result()
    produce(own.bootstrap_servers, "kept", [b"a", b"b"])
    answer = httpx.post(
        f"{own.registry_url}/subjects/kept-value/versions", json={"schema": SCHEMA}, timeout=30
    )
    running = embedded.find_running(own.home)
    for handle in running.values():
        handle.signal(signal.SIGKILL)
    process.wait_gone(list(running.values()), 10)
    assert {part.state for part in embedded.status(own.home)} == {"stopped"}

    assert embedded.start(own.home) == own
    assert consume(own.bootstrap_servers, "kept", 2) == [b"a", b"b"]
    kept = httpx.get(f"{own.registry_url}/subjects/kept-value/versions/latest", timeout=30).json()
    assert (kept["id"], json.loads(kept["schema"])) == (answer.json()["id"], json.loads(SCHEMA))


def test_the_registry_refuses_an_incompatible_schema(own: Endpoints) -> None:
    url = f"{own.registry_url}/subjects/strict-value/versions"
    assert httpx.post(url, json={"schema": SCHEMA}, timeout=30).status_code == 200
    other = SCHEMA.replace('"int"', '"string"')
    httpx.put(f"{own.registry_url}/config/strict-value", json={"compatibility": "BACKWARD"}, timeout=30)
    assert httpx.post(url, json={"schema": other}, timeout=30).status_code == 409


def test_a_killed_broker_comes_back_on_its_port_with_its_data(own: Endpoints) -> None:
    others = {name: pid for name, pid in pids(own.home).items() if name != "kafka"}
    admin = AdminClient({"bootstrap.servers": own.bootstrap_servers, "log_level": 0})
    admin.create_topics([NewTopic("chaos", 1, 1)])["chaos"].result()
    produce(own.bootstrap_servers, "chaos", [b"before"])
    embedded.kill_broker(own.home)
    embedded.restart_broker(own.home)
    produce(own.bootstrap_servers, "chaos", [b"after"])
    assert consume(own.bootstrap_servers, "chaos", 2) == [b"before", b"after"]
    assert {name: pid for name, pid in pids(own.home).items() if name != "kafka"} == others


def test_lost_pidfiles_are_found_again(own: Endpoints) -> None:
    before = pids(own.home)
    for name in embedded.NAMES:
        embedded.pidfile(own.home, name).unlink()
    embedded.start(own.home)
    assert pids(own.home) == before


def test_a_start_killed_halfway_is_taken_over(own: Endpoints) -> None:
    embedded.stop(own.home)
    half = process.spawn(
        [sys.executable, "-m", "services.cli.main", "up"],
        own.home / "half.log",
        {"MILLRACE_HOME": str(own.home)},
    )
    while not embedded.pidfile(own.home, "registry").is_file():
        assert half.alive, (own.home / "half.log").read_text()
        time.sleep(0.01)
    half.signal(signal.SIGKILL)
    assert embedded.start(own.home) == own
    assert len(process.find_marked(own.home, embedded.NAMES)) == 3


def test_down_leaves_no_process_and_up_again_serves(own: Endpoints) -> None:
    assert embedded.stop(own.home) == list(embedded.NAMES)
    mine = [
        p.pid for p in psutil.process_iter(["cmdline"]) if str(own.home) in " ".join(p.info["cmdline"] or ())
    ]
    assert mine == []
    assert all(ports.is_free(port) for port in ports.known(own.home / "ports.json").values())
    assert embedded.stop(own.home) == []
    assert millrace(own.home, "status").returncode == 1
    embedded.start(own.home)
    with redis.Redis.from_url(own.redis_url) as client:
        assert client.ping()
