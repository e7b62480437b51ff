"""What a part's log says becomes one line and a next step."""

from pathlib import Path

import pytest

from services.stack import diagnosis, parts


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ("Caused by: java.net.BindException: Address already in use", diagnosis.PORT),
        (
            "io.quarkus.runtime.QuarkusBindException: Port(s) already bound: 8080: Address already in use",
            diagnosis.PORT,
        ),
        ("java.io.IOException: No space left on device", diagnosis.DISK),
        ("There is insufficient memory for the Java Runtime Environment to continue.", diagnosis.MEMORY),
        (
            "Failed to acquire lock on file .lock in data. A Kafka instance in another process",
            diagnosis.LOCKED,
        ),
        ("org.h2.jdbc: Database may be already in use: null", diagnosis.LOCKED),
        ("java.nio.file.AccessDeniedException: data/meta.properties", diagnosis.RIGHTS),
        ("org.h2.mvstore.MVStoreException: File corrupted in chunk 9", diagnosis.DAMAGED),
        ("No space left on device\nretried\nAddress already in use", diagnosis.PORT),
    ],
)
def test_known_signs(log: str, cause: diagnosis.Cause, tmp_path: Path) -> None:
    (tmp_path / "out.log").write_text(f"some start\n{log}\nsome end\n")
    assert diagnosis.explain(tmp_path / "out.log") is cause


def test_the_broker_tells_its_story_in_its_own_log(tmp_path: Path) -> None:
    (tmp_path / "out.log").write_text("")
    (tmp_path / "server.log").write_text("FATAL No space left on device")
    assert diagnosis.explain(tmp_path / "out.log") is diagnosis.DISK


def test_unknown_words_are_shown(tmp_path: Path) -> None:
    (tmp_path / "out.log").write_text("a\nb\nc\nd\n")
    assert diagnosis.explain(tmp_path / "out.log").what == "b / c / d"
    assert diagnosis.explain(tmp_path / "absent.log").what == "it wrote nothing"


def test_a_lone_broker_waits_for_nobody() -> None:
    lines = dict(line.split("=", 1) for line in parts.broker_properties(Path("data"), 1, 2).splitlines())
    for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
        assert lines[f"{topic}.num.partitions"] == "1"
        assert lines[f"{topic}.replication.factor"] == "1"
    assert lines["auto.create.topics.enable"] == "false"
    assert lines["group.initial.rebalance.delay.ms"] == "0"
    assert lines["listeners"] == "PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2"
