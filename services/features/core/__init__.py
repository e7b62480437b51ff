"""The pure core of the features service: exact event-time windows and the fold of one stage.

`EntityWindows` folds rows in merged order into window features of one entity; `FeatureFold` is one stage of a
pipeline on top of it. No clock, no broker, no log.
"""
