"""Locks die with their holder, writes are whole or absent, ports are kept while they are free."""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from services.stack import ports, process
from services.stack.endpoints import Endpoints, read_endpoints
from services.stack.files import locked, write_whole
from shared.errors import Refused, Retry
from shared.settings import PlatformSettings

HOLDS = """
import sys, time
from pathlib import Path
from services.stack.files import locked
with locked(Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    holder = process.spawn((sys.executable, "-c", HOLDS, str(lock)), tmp_path / "log")
    while "held" not in (tmp_path / "log").read_text():
        time.sleep(0.02)
    with (
        pytest.raises(Retry, match=rf"a start is at work \(process {holder.pid}\); wait"),
        locked(lock, "a start is at work", wait_s=0.1),
    ):
        pass
    holder.signal(signal.SIGKILL)
    process.wait_gone([holder], 5)
    with locked(lock, "a start is at work", wait_s=0.1):
        assert lock.read_text() == str(os.getpid())


def test_a_write_that_fails_leaves_the_old_text(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 250)  # the file beside it has a longer name, longer than names can be
    target.write_text("old")
    with pytest.raises(Refused, match="free some space or choose another folder"):
        write_whole(target, "new")
    assert target.read_text() == "old"
    with pytest.raises(Refused, match="cannot write"):
        write_whole(target / "below-a-file", "new")
    assert list(tmp_path.iterdir()) == [target]


def test_ports_are_chosen_once_and_kept(tmp_path: Path) -> None:
    chosen = ports.settle(tmp_path / "ports.json")
    assert sorted(chosen) == sorted(ports.NAMES)
    assert len(set(chosen.values())) == len(ports.NAMES)
    assert ports.settle(tmp_path / "ports.json") == chosen


def test_a_taken_port_is_chosen_anew_unless_our_own_part_holds_it(tmp_path: Path) -> None:
    chosen = ports.settle(tmp_path / "ports.json")
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", chosen["kafka"]))
        stranger.listen()
        assert ports.settle(tmp_path / "ports.json", keep={"kafka"}) == chosen
        anew = ports.settle(tmp_path / "ports.json")
    assert anew["kafka"] != chosen["kafka"]
    assert {**anew, "kafka": 0} == {**chosen, "kafka": 0}


def test_ports_lie_below_those_of_outgoing_connections(tmp_path: Path) -> None:
    with socket.socket() as outgoing:
        outgoing.bind(("127.0.0.1", 0))
        lowest_seen = outgoing.getsockname()[1]
    assert max(ports.settle(tmp_path / "ports.json").values()) < max(lowest_seen, 32_768)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"kafka": "x"}', '{"kafka": null}'])
def test_a_damaged_ports_file_is_made_anew(content: str, tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text(content)
    chosen = ports.settle(tmp_path / "ports.json")
    assert json.loads((tmp_path / "ports.json").read_text()) == chosen


def test_settings_read_what_the_stack_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Endpoints.of(tmp_path, {"kafka": 1, "controller": 2, "registry": 3, "redis": 4})
    written.write()
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    settings = PlatformSettings()
    assert settings.kafka.bootstrap_servers == written.bootstrap_servers == "127.0.0.1:1"
    assert settings.registry.url == written.registry_url
    assert settings.redis.url.get_secret_value() == written.redis_url
    assert read_endpoints(tmp_path) == written
    monkeypatch.setenv("MILLRACE_KAFKA__BOOTSTRAP_SERVERS", "cluster:9092")
    assert PlatformSettings().kafka.bootstrap_servers == "cluster:9092"


def test_reading_endpoints_where_nothing_runs_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="millrace up"):
        read_endpoints(tmp_path)
