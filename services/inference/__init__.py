"""inference: every feature vector answered with one prediction.

Reads features.v1, and models.v1 for the model to obey. Writes predictions.v1; model.* records on audit.v1.
Keeps the model in force and the one before it, nothing else.
Promises one prediction a vector, under an announced model that proved itself, and swaps without a gap.
"""
