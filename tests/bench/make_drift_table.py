"""Writes services/drift/core/tabled.py: the simulation behind the drift detectors' thresholds, some minutes long.

Run: `python -m tests.bench.make_drift_table [RUNS [DETECTOR ...]]`; detectors left out keep their rows.
"""

import math
import sys
from pathlib import Path

import numpy as np

from services.drift.core.calibration import RUN, fit, simulate
from services.drift.core.sampled import Adwin
from services.drift.core.tabled import RATES, TABLE

TARGET = Path("services/drift/core/tabled.py")
HEAD = (
    '"""Offset and slope of each threshold by error rate; '
    'written by `python -m tests.bench.make_drift_table`."""\n\n'
)


def adwin(rate: float, runs: int) -> tuple[float, float]:
    """Of ln(1 / delta): the share of runs with an alarm at several deltas, on a line in ln(rows)."""
    points = []
    for delta in (0.5, 0.2, 0.1, 0.05, 0.02):
        random = np.random.default_rng(1)
        alarms = sum(
            Adwin(delta).step((random.random(RUN) < rate).astype(np.uint8), 0) >= 0 for _ in range(runs)
        )
        if 3 <= alarms < runs / 2:
            points.append((math.log(RUN * runs / alarms), math.log(1 / delta)))
    if len(points) < 3:
        raise SystemExit(f"too few alarms of adwin at {rate}: more runs")
    logs, heights = np.array(points).T
    slope, offset = np.polyfit(logs, heights, 1)
    return float(offset), float(slope)


def write(table: dict[str, list[tuple[float, float]]]) -> None:
    """The module as source."""
    lines = [f"RATES = {RATES}", "TABLE: dict[str, tuple[tuple[float, float], ...]] = {"]
    for detector, rows in table.items():
        lines.append(f'    "{detector}": (')
        lines += [f"        ({offset:.3f}, {slope:.3f})," for offset, slope in rows]
        lines.append("    ),")
    TARGET.write_text(HEAD + "\n".join([*lines, "}"]) + "\n")


def main() -> None:
    """Simulate every detector at every rate and write the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    wanted = sys.argv[2:] or ["scan", "page_hinkley", "ddm", "hddm_a", "kswin", "adwin"]
    table = {name: list(rows) for name, rows in TABLE.items()}
    for detector in wanted:
        table[detector] = []
        for rate in RATES:
            if detector == "adwin":
                line = adwin(rate, runs // 20)
            elif detector == "kswin" and table["kswin"]:
                line = table["kswin"][0]  # free of the distribution
            else:
                line = fit(simulate(detector, rate, runs, seed=1))
            table[detector].append(line)
            print(detector, rate, line, flush=True)
    write(table)


if __name__ == "__main__":
    main()
