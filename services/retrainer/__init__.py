"""retrainer: labelled vectors to announced models.

Reads features.v1 and accepted.v1. Writes artefacts to the store and announcements to models.v1.
Keeps nothing between runs. Promises the same artefact, bit for bit, for the same rows, declaration and seed.
So far it runs from the command line, `millrace models train`.
"""
