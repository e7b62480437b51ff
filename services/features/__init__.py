"""features: exact event-time windows over every accepted event.

Reads accepted.v1 or features-<entity>.v1. Writes the next stage's topic, or features.v1,
profiles.v1 and a Redis view.
Keeps the events that its windows can still reach, per entity, and labels that came before their event.
Promises the same vectors for the same log, at any speed, with any number of workers, with or without kills.
"""
