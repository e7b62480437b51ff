"""The controller's settings: `MILLRACE_CONTROLLER__` and the name; its rules are the pipeline's declaration."""

from pydantic_settings import SettingsConfigDict

from shared.runtime.entry import RuntimeSettings
from shared.settings import Settings


class ControllerSettings(Settings):
    """What may be set of the controller."""

    model_config = SettingsConfigDict(
        env_prefix="MILLRACE_CONTROLLER__", env_nested_delimiter="__", frozen=True, extra="ignore"
    )

    runtime: RuntimeSettings = RuntimeSettings(snapshot_records=10_000)
    """The loop: batch sizes, snapshots, the fuse, the health endpoint."""
    keys: str = ""
    """Folder of the signing key and of the trusted ones; `keys` below the home when empty."""
