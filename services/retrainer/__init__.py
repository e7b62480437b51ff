"""retrainer: outcomes to datasets, datasets to candidates, candidates to proposals.

Reads labeled.v1, drift.v1, commands.v1 and models.v1, and scores.v1 for its TensorBoard alone. Writes runs.v1,
`propose` on commands.v1, datasets and artefacts in the store. Keeps how far it has folded the ledger, and every
step's result under its key.
Promises one run and at most one proposal a trigger, and the same model, bit for bit, for the same ledger.
"""
