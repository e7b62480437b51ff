"""What every registry must do: the one in memory and, in the integration tests, the real one."""

from typing import Any

import fastavro
import pytest

from shared.contracts.subjects import subjects_of
from shared.errors import Refused
from shared.kafka.registry import SchemaRegistry, register_pipeline
from tests.unit.contracts.texts import parse


def record(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "R", "namespace": "n", "fields": list(fields)}


def parsed(schema: Any) -> Any:
    """With full names: a registry may leave out a namespace that the one around gives already."""
    return fastavro.parse_schema(schema, _write_hint=False)


X = {"name": "x", "type": "int"}
Y_NEEDED = {"name": "y", "type": "int"}
Y_DEFAULT = {"name": "y", "type": "int", "default": 0}


class RegistrySuite:
    """Give `registry` and a `subject` prefix of your own as fixtures."""

    def test_the_same_schema_keeps_its_id(self, registry: SchemaRegistry, subject: str) -> None:
        first = registry.register(subject, record(X))
        assert registry.register(subject, record(X)) == first
        assert registry.schema_of(first) == record(X)
        assert registry.ids_of(subject) == {first: record(X)}

    def test_what_nobody_knows_is_none(self, registry: SchemaRegistry, subject: str) -> None:
        assert registry.schema_of(2_000_000_000) is None
        assert registry.ids_of(subject) == {}
        assert registry.check(subject, record(X)) == []

    def test_versions_stand_oldest_first(self, registry: SchemaRegistry, subject: str) -> None:
        ids = [registry.register(subject, record(X)), registry.register(subject, record(X, Y_DEFAULT))]
        assert list(registry.ids_of(subject)) == ids

    def test_an_incompatible_change_is_refused_with_the_reason(
        self, registry: SchemaRegistry, subject: str
    ) -> None:
        registry.set_compatibility(subject, "BACKWARD_TRANSITIVE")
        registry.register(subject, record(X))
        with pytest.raises(Refused, match="y"):
            registry.register(subject, record(X, Y_NEEDED))
        reasons = registry.check(subject, record(X, Y_NEEDED))
        assert any("y" in reason for reason in reasons)
        assert len(registry.ids_of(subject)) == 1

    def test_full_also_protects_old_readers(self, registry: SchemaRegistry, subject: str) -> None:
        registry.set_compatibility(subject, "FULL_TRANSITIVE")
        registry.register(subject, record(X))
        with pytest.raises(Refused, match="x"):
            registry.register(subject, record())

    def test_transitive_means_every_version(self, registry: SchemaRegistry, subject: str) -> None:
        registry.set_compatibility(subject, "BACKWARD_TRANSITIVE")
        registry.register(subject, record(X))
        registry.register(subject, record(X, Y_DEFAULT))
        with pytest.raises(Refused):
            registry.register(subject, record(X, Y_NEEDED))

    def test_a_pipeline_registers_all_its_topics_and_again(
        self, registry: SchemaRegistry, subject: str
    ) -> None:
        pipeline = parse().model_copy(update={"name": subject})
        ids = register_pipeline(registry, pipeline)
        assert set(ids) == {s.topic for s in subjects_of(pipeline)}
        assert register_pipeline(registry, pipeline) == ids
        for expected in subjects_of(pipeline):
            stored = registry.schema_of(ids[expected.topic])
            assert parsed(stored) == parsed(expected.schema)
            assert registry.ids_of(expected.name) == {ids[expected.topic]: stored}
