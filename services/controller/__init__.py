"""controller: who serves.

Reads `<p>.commands.v1`, `<p>.scores.v1`, `<p>.audit.v1` (the workers' word) and `<p>.replays.v1`.
Writes `<p>.models.v1`, signed, and every decision with its cause to `<p>.audit.v1`.
Keeps the state of every model version, rebuilt from its own decisions, and the newest figure of each.
Promises that no two versions are champion at any offset, and that no decision is lost or made twice.
"""
