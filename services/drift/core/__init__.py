"""Drift as a fold: labelled rows and profiles in, alarms out. No clock, no broker, no chance."""
