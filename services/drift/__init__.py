"""drift: notices that the world has moved, says what, how far, since when and on which evidence.

Reads labeled.v1 and profiles.v1. Writes drift.v1.
Keeps the detectors' state with the offsets it stands at, and folds the log on from there at a start.
Promises alarms that are a function of the log, each told once: a restart neither loses a drift nor repeats it.
"""
