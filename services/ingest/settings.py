"""Ingest's settings: `MILLRACE_INGEST__` and the name, as in `MILLRACE_INGEST__MAX_HEADERS=16`."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.ingest.core.spec import Limits
from shared.runtime.entry import RuntimeSettings
from shared.settings import Settings


class IngestSettings(Settings):
    """What may be set of the door; the rules on contents are the pipeline's declaration."""

    model_config = SettingsConfigDict(
        env_prefix="MILLRACE_INGEST__", env_nested_delimiter="__", frozen=True, extra="ignore"
    )

    runtime: RuntimeSettings = RuntimeSettings()
    """The loop: batch sizes, snapshots, the fuse, the health endpoint."""
    max_value_bytes: int = Field(1_000_000, ge=1)
    """Largest value; the broker's own limit is near 1 MiB."""
    max_key_bytes: int = Field(1_024, ge=1)
    """Largest key."""
    max_headers: int = Field(32, ge=0)
    """Most headers of one record."""
    max_header_bytes: int = Field(65_536, ge=0)
    """Most bytes of headers, names included, of one record."""
    read_headers: bool = True
    """Whether headers are read: without, dedup is on the declared id alone, and reading is cheaper."""

    @property
    def limits(self) -> Limits:
        """The door's sizes."""
        return Limits(self.max_value_bytes, self.max_key_bytes, self.max_headers, self.max_header_bytes)
