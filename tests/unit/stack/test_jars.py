"""Fetched files are the committed ones, or nothing is used: wrong, cut off and absent files, network and
disk.
"""

import errno
import hashlib
import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from services.stack import jars, relock
from services.stack.jars import Jar
from shared.errors import Refused, Retry

GOOD = b"the committed bytes"


@dataclass
class Central:
    """A repository: what it answers for a file, and how often it was asked."""

    answer: bytes | Exception
    asked: int = 0
    fetched: list[str] = field(default_factory=list)

    def download(self, artifact: Any) -> Path:
        """What a resolver does: write below the cache."""
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        path = Path(artifact.cached_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.answer)
        return path


def jar(content: bytes = GOOD, packaging: str = "jar") -> Jar:
    return Jar("g", "a", "1", "", packaging, hashlib.sha256(content).hexdigest())


@contextmanager
def served_by(central: Central, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    original = jars.maven

    def with_central(cache: Path, progress: Any) -> Any:
        context = original(cache, progress)
        context.resolver = central
        return context

    with monkeypatch.context() as patch:
        patch.setattr(jars, "maven", with_central)
        yield


def fetch(central: Central, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with served_by(central, monkeypatch):
        return jars.fetch([jar()], cache)[0]


def test_a_file_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    central = Central(GOOD)
    assert fetch(central, tmp_path, monkeypatch).read_bytes() == GOOD
    fetch(central, tmp_path, monkeypatch)
    assert central.asked == 1


def test_a_cut_off_download_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch(Central(GOOD), tmp_path, monkeypatch)
    path.write_bytes(GOOD[:5])
    central = Central(GOOD)
    assert fetch(central, tmp_path, monkeypatch).read_bytes() == GOOD
    assert central.asked == 1


def test_a_file_with_another_hash_is_refused_and_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Refused, match=r"g:a:1: what was fetched has sha256 .* it was deleted"):
        fetch(Central(b"something else"), tmp_path, monkeypatch)
    assert list(tmp_path.rglob("*.jar")) == []


@pytest.mark.parametrize(
    ("failure", "kind", "says"),
    [
        (requests.ConnectionError("no route"), Retry, "check the network"),
        (requests.Timeout(), Retry, "check the network"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            Refused,
            "No space left on device; free some space",
        ),
        (RuntimeError("not found in remote repositories"), Retry, "try again later"),
    ],
)
def test_each_failure_says_what_to_do(
    failure: Exception, kind: type[Exception], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(kind, match=says):
        fetch(Central(failure), tmp_path, monkeypatch)


def archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        content = b"program"
        info = tarfile.TarInfo("quarkus-run.jar")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def unpack(content: bytes, expected: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(jars, "registry_archive", lambda: jar(expected, "tar.gz"))
    with served_by(Central(content), monkeypatch):
        return jars.unpack_registry(cache)


def test_the_archive_is_unpacked_after_its_check_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Refused, match="sha256"):
        unpack(archive(), b"another", tmp_path, monkeypatch)
    assert list(tmp_path.glob("registry-*")) == []
    content = archive()
    folder = unpack(content, content, tmp_path, monkeypatch)
    assert (folder / "quarkus-run.jar").read_bytes() == b"program"


def test_what_a_killed_unpacking_left_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = archive()
    folder = tmp_path / f"registry-1-{hashlib.sha256(content).hexdigest()[:12]}.partial"
    folder.mkdir()
    (folder / "half").write_text("x")
    made = unpack(content, content, tmp_path, monkeypatch)
    assert [path.name for path in made.iterdir()] == ["quarkus-run.jar"]


def test_the_committed_list_is_whole() -> None:
    listed = list(jars.parse(jars.LOCK.read_text().splitlines()))
    relock.check_versions(listed)
    assert len(jars.broker_jars()) == 46
    assert jars.registry_archive().with_hash("") == relock.REGISTRY_JAR
    assert all(len(entry.sha256) == 64 for entry in listed)
    assert "/" not in jars.LOCK.read_text()


def test_two_versions_of_kafka_are_refused() -> None:
    mixed = [Jar("org.apache.kafka", "kafka-clients", "3.9.1", "", "jar", "")]
    with pytest.raises(Refused, match=r"\['3.9.1'\]; pin each one to 4.3.1"):
        relock.check_versions(mixed)
