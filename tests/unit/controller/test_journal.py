"""What the log holds of decisions, where it cannot be read."""

import pytest

from services.controller import journal
from services.controller.core.state import INCIDENT, Entry
from shared.errors import Fatal
from shared.settings import KafkaSettings
from tests.unit.controller.makers import MODEL, rules
from tests.unit.controller.worlds import OUTLET, TABLES, World


def test_a_decision_whose_detail_is_broken_ends_the_process_with_a_word_for_people(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken(Entry):
        def detail_text(self) -> str:
            return "{"

    world = World(rules())
    world.settle()
    broken = Broken(INCIDENT, 1, "", "", "", "controller", "because", 0)
    (out,) = OUTLET.outs([broken])
    world.logs[out.topic].values += out.values.to_list()
    read = {topic: [log.polled(topic, 0, len(log.values))] for topic, log in world.logs.items()}
    monkeypatch.setattr(journal, "read_topic", lambda _, topic: read[topic])
    with pytest.raises(Fatal, match=r"restore the topic"):
        journal.read_state(KafkaSettings(), TABLES["audit"], TABLES["models"], MODEL, {})
