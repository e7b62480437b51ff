"""The real registry obeys the suite that its twin in memory obeys."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from typer.testing import CliRunner

from services.stack.endpoints import Endpoints
from shared.kafka.registry import Registry
from shared.settings import RegistrySettings
from tests.unit.contracts.registry_suite import RegistrySuite

pytestmark = pytest.mark.integration


class TestRealRegistry(RegistrySuite):
    @pytest.fixture
    def registry(self, stack: Endpoints) -> Iterator[Registry]:
        with Registry(RegistrySettings(url=stack.registry_url)) as registry:
            yield registry

    @pytest.fixture
    def subject(self, pipeline_name: str) -> str:
        return pipeline_name


def test_schemas_register_prints_ids(stack: Endpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    from services.cli import schemas

    monkeypatch.setenv("MILLRACE_REGISTRY__URL", stack.registry_url)
    app = typer.Typer()
    app.callback()(lambda: None)
    schemas.register(app)
    result = CliRunner().invoke(app, ["schemas", "register", "elec2"])
    assert result.exit_code == 0, result.output
    assert "elec2.events.v1-value" in result.output


def test_services_that_start_at_once_register_alike(stack: Endpoints, pipeline_name: str) -> None:
    schema = {"type": "record", "name": "Fresh", "fields": []}

    def arrive(subject: str) -> int:
        with Registry(RegistrySettings(url=stack.registry_url)) as registry:
            registry.set_compatibility(subject, "FULL_TRANSITIVE")
            return registry.register(subject, schema)

    with ThreadPoolExecutor(8) as pool:
        for turn in range(10):
            assert len(set(pool.map(arrive, [f"{pipeline_name}-{turn}"] * 8))) == 1
