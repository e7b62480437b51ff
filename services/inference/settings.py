"""Settings of the inference service: `MILLRACE_INFERENCE__...`."""

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.runtime.entry import RuntimeSettings
from shared.settings import Settings


class InferenceSettings(Settings):
    """What one inference worker can be told."""

    model_config = SettingsConfigDict(
        env_prefix="MILLRACE_INFERENCE__", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    runtime: RuntimeSettings = RuntimeSettings()
    """The loop; the batch size and delay come from the pipeline's [policy.batch]."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models run; auto takes a GPU where there is one."""
    artefact_wait_s: float = 60.0
    """How long an announced artefact may take to appear in the store before the announcement is refused."""
    keys: str = ""
    """Folder whose trusted/*.pem keys may announce models; `$MILLRACE_HOME/keys` by default."""
    model_memory_bytes: int = 4 << 30
    """Memory that a model may take on its golden samples before it is refused."""
    model_row_seconds: float = 0.5
    """Seconds a row that a model may ask for on its golden samples before it is refused."""
    models_memory_bytes: int = 8 << 30
    """Memory that all models of a worker may ask for together; the champion comes first, then the one before it,
    the canary, and shadows from the newest on."""
    spare: bool = True
    """Whether a process for the trial of the next model waits ready, some 150 MB, so that it comes into force a
    few seconds sooner."""
    attribution_share: float = Field(0.0, ge=0.0, le=1.0)
    """Share of events whose prediction is explained on attributions.v1; needs captum, and 32 scorings each."""
