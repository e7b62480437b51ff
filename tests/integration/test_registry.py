"""The real registry obeys the suite that its twin in memory obeys."""

from collections.abc import Iterator

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
