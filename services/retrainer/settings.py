"""Settings of the retrainer: `MILLRACE_RETRAINER__...`."""

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.control.loop import ControlSettings
from shared.settings import Settings


class RetrainerSettings(Settings):
    """What the retrainer can be told; what it trains, and when, is declared in [policy.retrain]."""

    model_config = SettingsConfigDict(
        env_prefix="MILLRACE_RETRAINER__", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    control: ControlSettings = ControlSettings()
    """The loop."""
    keys: str = ""
    """Folder whose trusted/*.pem keys may announce a champion; `$MILLRACE_HOME/keys` when empty."""
    niceness: int = Field(5, ge=0, le=19)
    """How far training stands back behind the services of the data path."""
    threads: int = Field(1, ge=1, le=256)
    """Threads of the training process; another number may give other last digits."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks are fitted; auto: on a GPU where there is one. It may give other last digits than a CPU."""
    spare: bool = True
    """Whether a training process waits ready, some 300 MB, so that a run need not wait for its imports."""
    tensorboard: bool = True
    """Whether event files are written below `$MILLRACE_HOME/tensorboard/<pipeline>`, and scores.v1 is read."""
    drift_wait_s: float = Field(30.0, ge=0.0)
    """How long a run waits for the drift service to have come to the run's sequence; then it goes on without."""
    verdict_wait_s: float = Field(5.0, ge=0.0)
    """How long a run waits for the controller's word on the proposal before it, so as to compare with who won."""
