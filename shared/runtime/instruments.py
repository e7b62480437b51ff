"""The loop's own metrics, in base units and with bounded labels."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


@dataclass(frozen=True, slots=True)
class Instruments:
    """What every worker counts; the names are the reference in docs/metrics.md."""

    records: Counter
    outputs: Counter
    dead_letters: Counter
    late: Counter
    commits: Counter
    resets: Counter
    batch_seconds: Histogram
    commit_seconds: Histogram
    snapshot_seconds: Histogram
    snapshot_bytes: Gauge
    lag_messages: Gauge
    lag_seconds: Gauge
    held: Gauge
    units: Gauge

    @staticmethod
    def on(registry: CollectorRegistry) -> "Instruments":
        """Declare all of them on `registry`."""

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"millrace_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"millrace_{name}", text, labels, registry=registry)

        def seconds(name: str, text: str) -> Histogram:
            return Histogram(f"millrace_{name}_seconds", text, buckets=SECONDS, registry=registry)

        return Instruments(
            records=counter("records_total", "Records read, by topic.", "topic"),
            outputs=counter("outputs_total", "Records written in committed transactions, by topic.", "topic"),
            dead_letters=counter("dead_letters_total", "Dead letters, by reason.", "reason"),
            late=counter("late_total", "Rows that came behind their place in the order."),
            commits=counter("commits_total", "Transactions committed."),
            resets=counter("resets_total", "Starts from the committed offsets after a failure."),
            batch_seconds=seconds("batch", "Time to fold one poll."),
            commit_seconds=seconds("commit", "Time from begin to commit of a transaction."),
            snapshot_seconds=seconds("snapshot", "Time that the loop stands still to save one state."),
            snapshot_bytes=gauge("snapshot_bytes", "Size of the newest snapshot."),
            lag_messages=gauge("lag_messages", "Records that wait in the topic.", "topic", "partition"),
            lag_seconds=gauge("lag_seconds", "Age of the newest record read while others wait.", "topic"),
            held=gauge("held_rows", "Rows that wait in the merge."),
            units=gauge("units", "Partitions that this worker holds."),
        )
