"""What a service declares so that the loop can run it."""

from collections.abc import Callable
from dataclasses import dataclass

from shared.kafka.columns import PLAIN, Reads
from shared.runtime.unit import Unit
from shared.topics import Compression


@dataclass(frozen=True, slots=True)
class Tuning:
    """Sizes and waits of the loop, each with the measurement behind it in docs/benchmarks.md."""

    max_records: int = 5_000
    """Records a poll at most; larger batches are slower per record."""
    poll_timeout_s: float = 0.01
    """How long a poll waits for more; 2 ms melts down at 10,000 events/s."""
    progress_interval_s: float = 0.02
    """Least time between two transactions that carry only progress."""
    most_pending: int = 20_000
    """Records that may gather while a transaction is under way; then the loop waits for it."""
    snapshot_records: int = 500_000
    """Records of one unit after which its state is saved: bounds the replay after a restart."""
    snapshot_interval_s: float = 30.0
    """Time after which a changed state is saved."""
    pause_rows: int = 50_000
    """Held rows of one source at which it is paused until the others catch up."""
    fuse_limit: int = 1_000
    """Bad records in a row that stop the service."""
    metrics_interval_s: float = 5.0
    """How often metrics go to the metrics topic."""
    resets: int = 20
    """Starts from committed offsets in a row, without a commit between, before the process gives up."""
    transactional: bool = True
    """False only in the negative control of the fault test: outputs and offsets are then not atomic."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One service of one pipeline: its inputs, its units, and what runs around them."""

    pipeline: str
    service: str
    name: str
    """Names the consumer group, the transactional ids and the snapshots: `features-customer`, say."""
    inputs: tuple[str, ...]
    """Topics read side by side; all have the same number of partitions, and a unit has one of each."""
    make_unit: Callable[[int], Unit]
    compression: Compression = "lz4"
    reads: Reads = PLAIN
    strangers: bool = False
    """Whether anybody may write the inputs: a batch that cannot be read is then skipped and told as an
    incident. In what Millrace wrote itself it ends the process."""
    stateless: bool = False
    """Whether a restart needs no snapshot and no replay."""
    refresh: Callable[[], None] = lambda: None
    """Called at every turn before the units: side inputs such as announcements."""

    @property
    def group(self) -> str:
        """The consumer group."""
        return f"millrace.{self.pipeline}.{self.name}"

    def transactional_id(self, slot: int) -> str:
        """Stable for a worker slot, so that a new process fences the old one."""
        return f"millrace.{self.pipeline}.{self.name}.{slot}"
