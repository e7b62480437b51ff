"""feedback: joins what was predicted with what came true, and keeps the score.

Reads accepted.v1, features.v1, predictions.v1 and shadows.v1; writes joined.v1, then labeled.v1 and scores.v1.
Keeps open predictions, early labels, and the outcomes of the windows that are not final yet.
Promises one ledger of outcomes for one log: each outcome once, whatever came twice, late, early or in between.
"""
