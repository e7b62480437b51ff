"""The path of the data on one screen: topic, key, schema, producers, consumers, retention.

Compose files, documentation, access rules and tests are made from this list.
"""

from dataclasses import dataclass
from typing import Literal

DAY_MS = 86_400_000
Compression = Literal["none", "gzip", "lz4"]


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of every pipeline; its name on the broker is `<pipeline>.<name>`."""

    name: str
    key: str
    schema: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    partitioned: bool = True
    compacted: bool = False
    retention_ms: int = 30 * DAY_MS
    # Clients outside read gzip and none everywhere; lz4 stays between Millrace's own services.
    compression: Compression = "lz4"

    def of(self, pipeline: str) -> str:
        """The topic's name on the broker for one pipeline."""
        return f"{pipeline}.{self.name}"

    @property
    def subject(self) -> str:
        """The registry's subject without the pipeline's prefix."""
        return f"{self.name}-value"


# The broker deletes by the records' own timestamps, and those of a replay lie years back: sources are kept
# until somebody who knows says otherwise.
EVENTS = Topic(
    "events.v1", "event key", "pipeline/event", ("anyone",), ("ingest",), retention_ms=-1, compression="none"
)
LABELS = Topic(
    "labels.v1", "event key", "pipeline/label", ("anyone",), ("ingest",), retention_ms=-1, compression="none"
)
REPLAYS = Topic(
    "replays.v1",
    "replay id",
    "platform/replay",
    ("cli",),
    ("ingest", "controller"),
    partitioned=False,
    compacted=True,
)
ACCEPTED = Topic("accepted.v1", "event key", "generated/accepted", ("ingest",), ("features", "feedback"))
FEATURES = Topic(
    "features.v1", "event key", "generated/features", ("features",), ("inference", "feedback", "retrainer")
)
MODELS = Topic(
    "models.v1",
    # With the name alone, compaction would drop the last good version behind one that workers refuse.
    "model name@version",
    "platform/model",
    ("controller", "cli"),
    ("inference", "retrainer", "console"),
    partitioned=False,
    compacted=True,
    compression="none",
)
AUDIT = Topic(
    "audit.v1",
    "model name",
    "platform/audit",
    ("controller", "inference"),
    ("controller", "console"),
    partitioned=False,
    retention_ms=-1,
    compression="none",
)
PREDICTIONS = Topic(
    "predictions.v1",
    "event key",
    "platform/prediction",
    ("inference",),
    ("feedback", "anyone"),
    compression="gzip",
)
# Versions that answer beside the one in force; nobody acts on them.
SHADOWS = Topic(
    "shadows.v1", "event key", "platform/prediction", ("inference",), ("feedback",), compression="gzip"
)
# Why answers came out as they did, where a share of them is explained.
ATTRIBUTIONS = Topic(
    "attributions.v1", "event key", "platform/attribution", ("inference",), ("anyone",), compression="gzip"
)
JOINED = Topic("joined.v1", "event key", "generated/joined", ("feedback",), ("feedback",), partitioned=False)
# The ledger of outcomes has one order for all who learn from it: what they do is a function of a sequence.
LABELED = Topic(
    "labeled.v1",
    "event key",
    "generated/labeled",
    ("feedback",),
    ("drift", "retrainer", "console", "anyone"),
    partitioned=False,
    retention_ms=-1,
    compression="gzip",
)
SCORES = Topic(
    "scores.v1",
    "model version",
    "platform/score",
    ("feedback",),
    ("controller", "retrainer", "console", "anyone"),
    partitioned=False,
    retention_ms=-1,
    compression="gzip",
)
PROFILES = Topic(
    "profiles.v1",
    "unit",
    "platform/profile",
    ("features", "feedback"),
    ("drift", "console"),
    partitioned=False,
    compression="gzip",
)
DRIFT = Topic(
    "drift.v1",
    "alarm id",
    "platform/drift",
    ("drift",),
    ("retrainer", "console", "anyone"),
    partitioned=False,
    retention_ms=-1,
    compression="none",
)
COMMANDS = Topic(
    "commands.v1",
    "model name",
    "platform/command",
    ("retrainer", "cli", "console"),
    ("controller", "retrainer"),
    partitioned=False,
    retention_ms=-1,
    compression="none",
)
RUNS = Topic(
    "runs.v1",
    "run id",
    "platform/run",
    ("retrainer",),
    ("retrainer", "console"),
    partitioned=False,
    retention_ms=-1,
    compression="none",
)
DLQ = Topic(
    "dlq.v1",
    "original key",
    "platform/dead_letter",
    ("ingest", "features", "inference", "feedback", "controller"),
    ("cli",),
    partitioned=False,
    retention_ms=-1,
)
METRICS = Topic(
    "metrics.v1",
    "service",
    "platform/metric",
    ("ingest", "features", "inference", "feedback", "drift", "retrainer", "controller"),
    ("console", "anyone"),
    partitioned=False,
    retention_ms=DAY_MS,
    compression="none",
)

ALL = (
    EVENTS,
    LABELS,
    REPLAYS,
    ACCEPTED,
    FEATURES,
    PROFILES,
    MODELS,
    AUDIT,
    PREDICTIONS,
    SHADOWS,
    ATTRIBUTIONS,
    JOINED,
    LABELED,
    SCORES,
    DRIFT,
    COMMANDS,
    RUNS,
    DLQ,
    METRICS,
)


def stage_topic(entity: str) -> Topic:
    """What a features stage hands to the next one, keyed by that next stage's `entity`."""
    return Topic(f"features-{entity}.v1", entity, "generated/stage", ("features",), ("features",))
