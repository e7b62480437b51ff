"""Settings of the feedback service: `MILLRACE_FEEDBACK__...`."""

from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.runtime.entry import RuntimeSettings


class FeedbackSettings(BaseSettings):
    """What one feedback worker can be told."""

    model_config = SettingsConfigDict(
        env_prefix="MILLRACE_FEEDBACK__", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    runtime: RuntimeSettings = RuntimeSettings()
    """The loop."""
