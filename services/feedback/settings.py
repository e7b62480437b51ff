"""Settings of the feedback service: `MILLRACE_FEEDBACK__...`."""

from pydantic_settings import SettingsConfigDict

from shared.runtime.entry import RuntimeSettings
from shared.settings import Settings

LABELS_IN_A_ROW = 1_000_000
"""Labels without an event are data, and time passing turns all that wait away at once: no reason to stop."""


class FeedbackSettings(Settings):
    """What one feedback worker can be told."""

    model_config = SettingsConfigDict(
        env_prefix="MILLRACE_FEEDBACK__",
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
        frozen=True,
        extra="forbid",
    )

    runtime: RuntimeSettings = RuntimeSettings(fuse_limit=LABELS_IN_A_ROW)
    """The loop."""
