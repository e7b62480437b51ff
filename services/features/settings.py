"""Settings of the features service: `MILLRACE_FEATURES__...`."""

from pydantic_settings import SettingsConfigDict

from shared.runtime.entry import RuntimeSettings
from shared.settings import Settings


class FeaturesSettings(Settings):
    """What one features worker can be told."""

    model_config = SettingsConfigDict(
        env_prefix="MILLRACE_FEATURES__", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    runtime: RuntimeSettings = RuntimeSettings()
    """The loop."""
    view: bool = True
    """Whether the last stage keeps the newest vector per key in Redis."""
    view_interval_s: float = 0.2
    """How often the view is written; between two writes only the newest vector of a key counts."""
