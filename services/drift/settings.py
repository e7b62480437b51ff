"""Settings of the drift service: `MILLRACE_DRIFT__...`."""

from pydantic_settings import SettingsConfigDict

from shared.control.loop import ControlSettings
from shared.settings import Settings


class DriftSettings(Settings):
    """What the drift worker can be told."""

    model_config = SettingsConfigDict(
        env_prefix="MILLRACE_DRIFT__", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    control: ControlSettings = ControlSettings()
    """The loop."""
    snapshot_rows: int = 20_000
    """Rows of labeled.v1 after which the state is saved: bounds what is folded again after a restart."""
    snapshot_interval_s: float = 30.0
    """Seconds after which a changed state is saved."""
    ledger_wait_s: float = 5.0
    """How long the ledger must have stood still for an alarm of a profile not to wait until it passes its time."""
