"""ingest: the door.

Reads `<p>.events.v1` and `<p>.labels.v1` from any producer, and `<p>.replays.v1`.
Writes `<p>.accepted.v1`: events and labels in one order; what is wrong goes to `<p>.dlq.v1`.
Keeps the ids of events and the labels seen within the declared horizon, and where each source stands.
Promises that every record is let through once, dropped as a repeat, or a dead letter with a reason.
"""
